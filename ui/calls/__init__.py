"""The calls of each page to the server: one module for each page, functions over `ui.client.ServerClient`."""
