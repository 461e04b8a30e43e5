<?php

// Stands for the login of an application with PHP's own sessions: signs user 7 in.
session_start();
$_SESSION['user_id'] = '7';
echo session_id();
