"""Puts a running server together, and is its only HTTP surface.

http            create_app: routes, middleware and error handlers in their order
build           the parts behind the routes
run             listens, serves, stops
data_dir        one server to a data directory, and its database
engines         engines as the settings ask for them
services        what routes are given
settings_shown  settings as `tuneloop settings` and the API show them
http_protocol   bounds on what arrives before a body
"""
