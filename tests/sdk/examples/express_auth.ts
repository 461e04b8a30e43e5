import express from 'express';
import Pusher from 'pusher';

const app = express();
app.use(express.urlencoded({ extended: true }));

const pusher = new Pusher({
  appId: process.env.RELAY_APP_ID!,
  key: process.env.RELAY_KEY!,
  secret: process.env.RELAY_SECRET!,
  cluster: 'sa',
  host: process.env.RELAY_HOST!,
  port: process.env.RELAY_PORT!,
  useTLS: true,
});

app.post('/pusher/auth', requireAuth, (req, res) => {
  const { socket_id, channel_name } = req.body;
  const userId: string = res.locals.userId;

  // Permission check
  if (channel_name === `private-user.${userId}`) {
    const auth = pusher.authorizeChannel(socket_id, channel_name);
    return res.json(auth);
  }

  return res.sendStatus(403);
});
