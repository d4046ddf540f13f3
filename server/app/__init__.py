"""Assembles a running server, and is its only HTTP surface.

http            create_app: routes, middleware and error handlers in their order
build           the parts behind the routes
run             listens, serves, stops
data_dir        the data directory, used by one server, and its database
engines         the engines that the settings define
services        the services that routes use
settings_shown  settings as `tuneloop settings` and the API show them
http_protocol   limits on request lines and headers
"""
