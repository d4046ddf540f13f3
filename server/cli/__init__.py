"""The command line.

main         the application, and the one place where errors become exit codes
console      how it prints
options      settings as flags
base_model   which base model a command means
commands/    a module for each command
"""
