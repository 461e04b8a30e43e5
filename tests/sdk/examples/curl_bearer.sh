curl -X POST "http://$RELAY_HOST:$RELAY_PORT/api/v1/apps/$RELAY_APP_ID/events" \
  -H "Authorization: Bearer $RELAY_TOKEN" \
  -H "Content-Type: application/json" \
  -d '{"name": "event", "channels": ["ch"], "data": "{}"}'
