"""What the Python scripts share: the server's address and the app from the environment, the stock server SDK, and
telling what was shown.
"""

import base64
import os

import pusher

APP_ID, KEY, SECRET = (os.environ[name] for name in ("RELAY_APP_ID", "RELAY_KEY", "RELAY_SECRET"))
HOST, PORT = os.environ["RELAY_HOST"], int(os.environ["RELAY_PORT"])

# P-ENC-1: the key of encrypted channels, which Relay never receives.
MASTER_KEY = base64.b64encode(bytes([7]) * 32).decode()

PATIENCE_S = 50
# The server is restarted, and clients wait longer after each attempt.
RECONNECT_S = 40


def server_sdk(**more):
    """P-CFG-3: the server SDK as its documentation makes it; `more` are further options."""
    options = {"app_id": APP_ID, "key": KEY, "secret": SECRET, "host": HOST, "port": PORT, "ssl": False}
    return pusher.Pusher(**{**options, **more})


def shown(sdk, *features):
    """Reports a feature whose assertions have passed, for the table of SDKs."""
    for feature in features:
        print(f"shown {sdk}: {feature}", flush=True)
