from os import environ

from flask import Flask, request, session, jsonify, abort
import pusher

app = Flask(__name__)
p = pusher.Pusher(
    app_id=environ['RELAY_APP_ID'],
    key=environ['RELAY_KEY'],
    secret=environ['RELAY_SECRET'],
    cluster='sa',
    host=environ['RELAY_HOST'],
    port=int(environ['RELAY_PORT']),
    ssl=True,
)

@app.post('/pusher/auth')
def auth():
    user_id = session.get('user_id')
    if not user_id:
        abort(401)

    channel = request.form['channel_name']
    socket_id = request.form['socket_id']

    if channel != f'private-user.{user_id}':
        abort(403)

    return jsonify(p.authenticate(channel=channel, socket_id=socket_id))
