<?php
use Illuminate\Support\Facades\Broadcast;

Broadcast::channel('user.{id}', function ($user, $id) {
    return $user->id === (int) $id;
});

Broadcast::channel('order.{id}', function ($user, $id) {
    return Order::find($id)?->user_id === $user->id;
});
