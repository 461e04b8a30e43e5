"""Serves the recipe `app.py` of this folder on a free port of 127.0.0.1, which it prints."""

from app import app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, app)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
