"""The routes, one module per subject of the API. Each module has a `router`; `http.create_app` mounts them."""
