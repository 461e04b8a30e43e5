curl -X POST "http://$RELAY_HOST:$RELAY_PORT/api/v1/apps/$RELAY_APP_ID/events" \
  -H "X-Relay-Key: $RELAY_KEY" \
  -H "X-Relay-Secret: $RELAY_SECRET" \
  -H "Content-Type: application/json" \
  -d '{"name": "event", "channels": ["ch"], "data": "{}"}'
