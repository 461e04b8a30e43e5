"""A receiver of webhooks with the Python server SDK's own check (P-SDK-24, P-HOOK-1 to P-HOOK-3).

What the SDK finds valid is printed, one event per line; what it does not is refused, which the test would see as a missing event.
"""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

from rig import server_sdk, shown

CLIENT = server_sdk()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        proof = {"key": self.headers["X-Pusher-Key"], "signature": self.headers["X-Pusher-Signature"]}
        webhook = CLIENT.validate_webhook(body=body, **proof)
        forged = CLIENT.validate_webhook(body=body + " ", **proof)
        valid = webhook is not None and forged is None
        if valid:
            shown("pusher (Python)", "webhooks")
        for event in webhook["events"] if valid else []:
            print(json.dumps(event), flush=True)
        self.send_response(200 if valid else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


receiver = HTTPServer(("127.0.0.1", 0), Receiver)
print(f"port {receiver.server_port}", flush=True)
receiver.serve_forever()
