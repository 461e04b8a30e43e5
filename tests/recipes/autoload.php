<?php

// Stands for vendor/autoload.php with pusher/pusher-php-server, whose registry the tests do not use: the constructor's order of
// arguments, and authorizeChannel, which takes the channel first (R-RECIPE-3).

namespace Pusher;

class Pusher
{
    public function __construct(private string $key, private string $secret, string $appId, array $options = [])
    {
        foreach (['host', 'port', 'scheme', 'cluster', 'useTLS'] as $option) {
            isset($options[$option]) || throw new \InvalidArgumentException("$option is missing");
        }
    }

    public function authorizeChannel(string $channel, string $socketId): string
    {
        if (!preg_match('/\A\d+\.\d+\z/', $socketId)) {
            throw new \InvalidArgumentException("Invalid socket ID $socketId");
        }
        $signature = hash_hmac('sha256', "$socketId:$channel", $this->secret);
        return json_encode(['auth' => "$this->key:$signature"]);
    }
}
