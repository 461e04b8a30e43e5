<?php

// Stands for the login of the application in docs/recipes/php.md.
function currentUser(): ?array
{
    $id = $_SERVER['HTTP_X_USER'] ?? '';
    return $id === '' ? null : ['id' => $id, 'name' => "User $id"];
}
