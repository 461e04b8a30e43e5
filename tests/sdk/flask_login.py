"""Runs examples/flask_auth.py on a free port of 127.0.0.1, which it prints. The example leaves the login to its reader:
here the header `X-User` logs in.
"""

import sys

from flask import request, session
from werkzeug.serving import make_server

sys.path.insert(0, sys.argv[1])
from flask_auth import app  # noqa: E402

app.secret_key = "a key for the session cookies of this test"


@app.before_request
def log_in():
    session["user_id"] = request.headers.get("X-User")


server = make_server("127.0.0.1", 0, app)
print(f"port {server.server_port}", flush=True)
server.serve_forever()
