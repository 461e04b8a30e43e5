"""P-CFG-5, P-CFG-7: the server SDK by its arguments and by a URL; each publishes an event named after the way.

Of a URL this SDK takes no port, so that is an option beside it.
"""

import os

import pusher
import rig

rig.server_sdk().trigger("news", "options", {})
url = os.environ["PUSHER_URL"].replace(f":{rig.PORT}/", "/")
pusher.Pusher.from_url(url, port=rig.PORT).trigger("news", "url", {})
os.environ["PUSHER_URL"] = url
pusher.Pusher.from_env(port=rig.PORT).trigger("news", "environment", {})
print("ok", flush=True)
