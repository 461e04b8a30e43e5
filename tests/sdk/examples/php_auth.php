<?php
require __DIR__ . '/vendor/autoload.php';

session_start();

if (empty($_SESSION['user_id'])) {
    http_response_code(401);
    exit;
}

$userId = (int) $_SESSION['user_id'];
$channel = $_POST['channel_name'] ?? '';
$socketId = $_POST['socket_id'] ?? '';

if ($channel !== "private-user.{$userId}") {
    http_response_code(403);
    exit;
}

$pusher = new Pusher\Pusher(
    getenv('RELAY_KEY'),
    getenv('RELAY_SECRET'),
    getenv('RELAY_APP_ID'),
    [
        'host' => getenv('RELAY_HOST'),
        'port' => 443,
        'scheme' => 'https',
        'cluster' => 'sa',
        'useTLS' => true,
    ],
);

header('Content-Type: application/json');
echo $pusher->authorizeChannel($channel, $socketId);
