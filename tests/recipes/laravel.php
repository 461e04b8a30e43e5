<?php

// Stands for Laravel around a file routes/channels.php: the facade that the file calls, the models that it names, and the
// route /broadcasting/auth, which matches names and signs as Laravel's broadcaster for Pusher does (R-RECIPE-1).

namespace Illuminate\Support\Facades {
    class Broadcast
    {
        public static array $channels = [];

        public static function channel(string $pattern, callable $callback): void
        {
            self::$channels[$pattern] = $callback;
        }
    }
}

namespace App\Models {
    class User
    {
        public function __construct(public int $id, public string $name)
        {
        }

        public function canJoin(int $room): bool
        {
            return $room === 1;
        }
    }

    // Order 42 is the only one, and user 7's.
    class Order
    {
        public ?int $user_id = null;

        public static function find(mixed $id): ?self
        {
            $order = new self();
            $order->user_id = 7;
            return (int) $id === 42 ? $order : null;
        }

        public static function findOrNew(mixed $id): self
        {
            return self::find($id) ?? new self();
        }
    }
}

namespace {
    use App\Models\User;
    use Illuminate\Support\Facades\Broadcast;

    // The document's older example names the model without its namespace.
    class_alias(App\Models\Order::class, 'Order');
    require getenv('CHANNELS');

    function refuse(): never
    {
        http_response_code(403);
        exit;
    }

    parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) === '/broadcasting/auth' || refuse();
    $id = (int) ($_SERVER['HTTP_X_USER'] ?? 0);
    $user = $id === 0 ? refuse() : new User($id, "User $id");
    $channel = $_POST['channel_name'] ?? '';
    $socketId = $_POST['socket_id'] ?? '';
    preg_match('/\A\d+\.\d+\z/', $socketId) || refuse();
    $isPresence = str_starts_with($channel, 'presence-');
    $isPresence || str_starts_with($channel, 'private-') || refuse();
    $name = preg_replace('/^(private-encrypted-|private-|presence-)/', '', $channel);

    foreach (Broadcast::$channels as $pattern => $callback) {
        $expression = preg_replace('/\\\\\{.*?\\\\\}/', '([^.]+)', preg_quote($pattern, '/'));
        if (!preg_match("/\\A$expression\\z/", $name, $found)) {
            continue;
        }
        $result = $callback($user, ...array_slice($found, 1));
        $result || refuse();
        $answer = [];
        $signed = "$socketId:$channel";
        if ($isPresence) {
            $answer['channel_data'] = json_encode(['user_id' => (string) $user->id, 'user_info' => $result]);
            $signed .= ':' . $answer['channel_data'];
        }
        $signature = hash_hmac('sha256', $signed, getenv('PUSHER_APP_SECRET'));
        header('Content-Type: application/json');
        echo json_encode(['auth' => getenv('PUSHER_APP_KEY') . ":$signature"] + $answer);
        exit;
    }
    refuse();
}
