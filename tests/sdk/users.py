"""The stock Python server SDK sends to a user and ends its connections, by its short path (P-SDK-25, P-HTTP-10, P-AUTH-4).

    users.py USER
"""

import json
import sys

from rig import server_sdk


def main(user):
    client = server_sdk()
    proof = client.authenticate_user("1234.1234", {"id": user, "watchlist": ["a"]})
    assert json.loads(proof["user_data"])["id"] == user
    assert client.send_to_user(user, "greeting", {"from": "python"}) == {}
    assert client.terminate_user_connections(user) == {}
    assert client.terminate_user_connections("nobody") == {}
    print("ok")


main(sys.argv[1])
