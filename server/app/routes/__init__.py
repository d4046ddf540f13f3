"""The routes, a module each for what the API is about. Each module has a `router`; `http.create_app` mounts them."""
