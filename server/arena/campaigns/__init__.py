"""Campaigns: a fixed set of prompts × models × raters.

prompts.py      the prompts, read from a list or a file
store.py        campaigns in the database: create, list, close, delete
progress.py     a campaign as the API's object, with its progress
answers.py      the queue of answers to generate, and their results, one transaction per answer
generator.py    generates the answers in the background, and continues after a crash
assignments.py  which pair a rater rates next
invitations.py  raters' invitations, and what they allow
"""
