//! Why a signature was refused: the closed list of causes, and what to change for each (R-EXPLAIN-2).

use crate::label::{Label, labels};

labels! {
    /// What the search found.
    pub enum Verdict {
        /// Relay accepts it.
        Accepted => "accepted",
        /// Relay refuses it, and the cause is certain: the mistake reproduces the signature, or is visible without it.
        Explained => "explained",
        /// Relay refuses it, and no known mistake reproduces the signature.
        Unexplained => "unexplained",
        /// The same, and the search reached its limit before it had tried everything.
        Cut => "cut",
    }
}

labels! {
    /// The cause of a refusal.
    pub enum Cause {
        /// There is none: the credential is valid.
        Ok => "ok",
        /// There is no signature, token or secret.
        MissingCredential => "missing_credential",
        /// `auth` is a signature without `KEY:`.
        MissingKey => "missing_key",
        /// A parameter of the query is missing.
        MissingParameter => "missing_parameter",
        /// The request has a body and no `body_md5`.
        MissingBodyMd5 => "missing_body_md5",
        /// A parameter of the query occurs twice.
        RepeatedParameter => "repeated_parameter",
        /// The query is longer than any that Relay reads in several ways.
        QueryTooLong => "query_too_long",
        /// `auth_version` is not 1.0.
        WrongVersion => "wrong_version",
        /// `auth` is not `KEY:SIGNATURE`.
        MalformedAuth => "malformed_auth",
        /// `auth_timestamp` is not a number.
        MalformedTimestamp => "malformed_timestamp",
        /// The signature is not 64 hex digits.
        MalformedSignature => "malformed_signature",
        /// The signature is right and in upper case.
        UpperCaseSignature => "upper_case_signature",
        /// The signature is right and in base64.
        Base64Signature => "base64_signature",
        /// The signature is right with white space, quotes or a prefix around it.
        PaddedSignature => "padded_signature",
        /// No app has the key.
        UnknownKey => "unknown_key",
        /// The key has quotes around it.
        QuotedKey => "quoted_key",
        /// The key has white space around it.
        PaddedKey => "padded_key",
        /// The key is that of another app.
        OtherAppKey => "other_app_key",
        /// The path names another app.
        OtherAppPath => "other_app_path",
        /// The app is disabled.
        AppDisabled => "app_disabled",
        /// The secret is in the place of the key.
        SwappedKeyAndSecret => "swapped_key_and_secret",
        /// It is signed with the key, or the id of the app, as its secret.
        SignedWithKey => "signed_with_key",
        /// It is signed with the secret of another active key of the app.
        SecretOfOtherKey => "secret_of_other_key",
        /// It is signed with the secret of another app.
        SecretOfOtherApp => "secret_of_other_app",
        /// It is signed with no secret, or with a word for none.
        EmptySecret => "empty_secret",
        /// The secret has white space around it.
        PaddedSecret => "padded_secret",
        /// The secret has quotes around it.
        QuotedSecret => "quoted_secret",
        /// The secret was decoded, encoded or changed in case.
        EncodedSecret => "encoded_secret",
        /// It is signed with another function than HMAC-SHA256.
        WrongHash => "wrong_hash",
        /// The text was signed in another encoding than UTF-8.
        WrongEncoding => "wrong_encoding",
        /// Socket id and channel are in the wrong order.
        ReversedOrder => "reversed_order",
        /// The parts of the text are joined by something else.
        WrongSeparator => "wrong_separator",
        /// A line feed or a space was signed after the text.
        TrailingNewline => "trailing_newline",
        /// A part of the text was not signed.
        MissingPart => "missing_part",
        /// `channel_data` was not signed.
        MissingChannelData => "missing_channel_data",
        /// Other `channel_data` or `user_data` was signed.
        OtherData => "other_data",
        /// The same data was signed as another JSON encoder writes it.
        ReserializedData => "reserialized_data",
        /// The data was signed as a JSON string of JSON.
        DataEncodedTwice => "data_encoded_twice",
        /// The name of the channel was signed without its prefix, with another one, or in another case.
        OtherChannelName => "other_channel_name",
        /// A signin was signed for a channel.
        UserAuthForChannel => "user_auth_for_channel",
        /// A channel was signed for a signin.
        ChannelAuthForUser => "channel_auth_for_user",
        /// The channel belongs to a signed-in user.
        UserChannel => "user_channel",
        /// Something was percent-encoded, or not, when it was signed.
        PercentEncoding => "percent_encoding",
        /// The method was signed in lower case.
        LowerCaseMethod => "lower_case_method",
        /// Another method was signed.
        OtherMethod => "other_method",
        /// The parameters were not signed in the order of their names.
        UnsortedQuery => "unsorted_query",
        /// The names of parameters were signed in upper case.
        UpperCaseNames => "upper_case_names",
        /// The path was signed with or without a prefix.
        PathPrefix => "path_prefix",
        /// The path was signed with other slashes.
        PathSlashes => "path_slashes",
        /// The host was signed.
        HostInPath => "host_in_path",
        /// The query was signed as a part of the path.
        QueryInPath => "query_in_path",
        /// Parameters were added after signing.
        UnsignedParameters => "unsigned_parameters",
        /// The body was signed in place of its MD5.
        BodySigned => "body_signed",
        /// `auth_timestamp` is too far from the server's clock.
        ClockSkew => "clock_skew",
        /// `auth_timestamp` is in milliseconds.
        TimestampInMs => "timestamp_in_ms",
        /// `body_md5` is the MD5 of another body.
        OtherBody => "other_body",
        /// The body is the signed one, written by another JSON encoder.
        ReformattedBody => "reformatted_body",
        /// The body gained or lost a line feed or white space at its end.
        BodyNewline => "body_newline",
        /// The body is compressed.
        CompressedBody => "compressed_body",
        /// `body_md5` is the MD5 of no body.
        Md5OfEmptyBody => "md5_of_empty_body",
        /// `body_md5` is not in hex.
        EncodedBodyMd5 => "encoded_body_md5",
        /// `X-Relay-Secret` is not the secret of `X-Relay-Key`.
        BadSecret => "bad_secret",
        /// The token does not have the form of one.
        MalformedToken => "malformed_token",
        /// The token is unknown, expired, revoked or of another app.
        BadToken => "bad_token",
        /// The refusal is not about a credential.
        NotACredential => "not_a_credential",
        /// No known mistake explains it.
        Unknown => "unknown",
    }
}

impl Cause {
    /// What to change: a sentence without its full stop.
    pub fn hint(self) -> &'static str {
        HINTS[self.index()].1
    }
}

/// In the order of the list.
const HINTS: &[(Cause, &str)] = &[
    (Cause::Ok, "Nothing has to be changed: Relay accepts this credential now"),
    (
        Cause::MissingCredential,
        "Send a credential: auth for a channel; for a request a signed query, Authorization: Bearer rly_..., or \
         X-Relay-Key and X-Relay-Secret",
    ),
    (Cause::MissingKey, "Put the key and a colon before the signature: auth is KEY:SIGNATURE"),
    (Cause::MissingParameter, "Add the parameter to the query and sign it"),
    (
        Cause::MissingBodyMd5,
        "Add body_md5 to the query before signing it: the MD5 of exactly the bytes of the body, in hex",
    ),
    (Cause::RepeatedParameter, "Send the parameter once and not as an array"),
    (Cause::QueryTooLong, "Send fewer and shorter parameters, or unescaped ones"),
    (Cause::WrongVersion, "Send auth_version=1.0"),
    (Cause::MalformedAuth, "Return auth as the text KEY:SIGNATURE, not quoted and not as JSON within a string"),
    (Cause::MalformedTimestamp, "Send auth_timestamp as a whole number of seconds since 1970"),
    (Cause::MalformedSignature, "Write the signature as 64 lower-case hex digits"),
    (Cause::UpperCaseSignature, "Write the hex digits of the signature in lower case"),
    (Cause::Base64Signature, "Write the signature as lower-case hex digits, not as base64"),
    (Cause::PaddedSignature, "Remove what is around the signature: white space, quotes or a prefix"),
    (Cause::UnknownKey, "Use an active key of this app (relay app show ID): this one is not, or no longer, one"),
    (Cause::QuotedKey, "Remove the quotes around the key: the env file or template passes them on"),
    (Cause::PaddedKey, "Remove the white space around the key"),
    (Cause::OtherAppKey, "Use key and secret of this app: the key belongs to another app"),
    (Cause::OtherAppPath, "Use the app id that belongs to the key: the path names another app"),
    (Cause::AppDisabled, "Enable the app: relay app enable ID"),
    (
        Cause::SwappedKeyAndSecret,
        "Swap key and secret in the configuration of the signing code, and replace the pair (relay app rotate ID): \
         the secret was sent in the place of the key",
    ),
    (Cause::SignedWithKey, "Sign with the secret of the key: the key or the app's id itself was used as the secret"),
    (
        Cause::SecretOfOtherKey,
        "Use key and secret of one pair: this was signed with the secret of another key of the app",
    ),
    (Cause::SecretOfOtherApp, "Use the secret of this app: this was signed with that of another app"),
    (
        Cause::EmptySecret,
        "Pass the secret to the signing code: its variable was empty, not set, or has the example's value",
    ),
    (Cause::PaddedSecret, "Remove the white space around the secret, such as the line feed at the end of a file"),
    (Cause::QuotedSecret, "Remove the quotes around the secret: the env file or template passes them on"),
    (Cause::EncodedSecret, "Use the text of the secret as it is for the key of the HMAC"),
    (Cause::WrongHash, "Sign with HMAC-SHA256"),
    (Cause::WrongEncoding, "Encode text and secret as UTF-8, without a byte order mark, before signing"),
    (Cause::ReversedOrder, "Sign the socket id first: socket_id:channel_name, then :channel_data"),
    (Cause::WrongSeparator, "Join the parts of the text as documented: colons for a channel, line feeds for a request"),
    (Cause::TrailingNewline, "Sign the text without a line feed or space after it: echo adds one, printf does not"),
    (Cause::MissingPart, "Sign all parts of the text: METHOD, PATH and the sorted query, each on its own line"),
    (Cause::MissingChannelData, "Sign socket_id:channel_name:channel_data, and return the same channel_data"),
    (Cause::OtherData, "Sign exactly the data that is sent: other data was signed"),
    (
        Cause::ReserializedData,
        "Encode the data once, sign that string and return the same string: what is sent was encoded again",
    ),
    (Cause::DataEncodedTwice, "Sign the data as it is sent: it was encoded as JSON once more or once less than that"),
    (Cause::OtherChannelName, "Sign the name of the channel as it is subscribed, with its prefix and in its case"),
    (
        Cause::UserAuthForChannel,
        "Authorize the channel (authorizeChannel), not the user: socket_id:channel_name, without ::user::",
    ),
    (Cause::ChannelAuthForUser, "Authenticate the user (authenticateUser), not a channel: socket_id::user::user_data"),
    (Cause::UserChannel, "Call pusher.signin(): this channel is only for its signed-in user and needs no signature"),
    (
        Cause::PercentEncoding,
        "Sign names, values and path as they are, not percent-encoded, and encode what is sent once",
    ),
    (Cause::LowerCaseMethod, "Sign the method in upper case"),
    (Cause::OtherMethod, "Sign the method that is sent, in upper case"),
    (Cause::UnsortedQuery, "Sort the parameters by name before signing"),
    (Cause::UpperCaseNames, "Write the names of parameters in lower case before signing"),
    (
        Cause::PathPrefix,
        "Sign the path that reaches Relay, or set path_prefix: a proxy or the client adds or removes the beginning",
    ),
    (Cause::PathSlashes, "Sign the path with the same slashes as it is sent: one at its beginning, none doubled"),
    (Cause::HostInPath, "Sign the path without scheme, host and port"),
    (Cause::QueryInPath, "Sign path and query on lines of their own, without the question mark"),
    (Cause::UnsignedParameters, "Sign all parameters of the query, also those that are added later"),
    (Cause::BodySigned, "Sign body_md5, the MD5 of the body in hex, as a parameter: not the body itself"),
    (Cause::ClockSkew, "Synchronize the clocks of both machines, and sign right before sending"),
    (Cause::TimestampInMs, "Send auth_timestamp in seconds, not in milliseconds"),
    (Cause::OtherBody, "Send exactly the bytes whose MD5 was signed: body_md5 is that of another body"),
    (
        Cause::ReformattedBody,
        "Encode the body once, and use the same bytes for body_md5 and the request: it was encoded again after that",
    ),
    (Cause::BodyNewline, "Compute body_md5 over the body as it is sent: its end was changed after that"),
    (Cause::CompressedBody, "Send the body uncompressed: it was compressed after signing"),
    (Cause::Md5OfEmptyBody, "Compute body_md5 over the body: it is the MD5 of an empty one"),
    (Cause::EncodedBodyMd5, "Write body_md5 as 32 hex digits"),
    (Cause::BadSecret, "Use the secret of the key in X-Relay-Key: relay app show ID --secrets"),
    (Cause::MalformedToken, "Send the token whole: rly_ and 40 characters of A-Z, a-z and 0-9"),
    (Cause::BadToken, "Use a valid token of this app: relay token list --app ID shows the state of each"),
    (
        Cause::NotACredential,
        "The credential is not the cause of this refusal: docs/troubleshooting.md lists its reason",
    ),
    (
        Cause::Unknown,
        "Compare expected_string_to_sign with what your code signs, byte by byte, and compare the secrets",
    ),
];

const _: () = assert!(HINTS.len() == <Cause as Label>::ALL.len());

#[cfg(test)]
mod tests {
    use super::*;

    /// R-EXPLAIN-2: every cause has its own hint: one sentence that says what to change.
    #[test]
    fn each_cause_has_its_hint() {
        for (index, (cause, hint)) in HINTS.iter().enumerate() {
            assert_eq!(cause.index(), index, "{hint}");
            assert!(hint.len() > 15 && !hint.ends_with('.') && !hint.contains(". "), "{hint}");
            assert_eq!(HINTS.iter().filter(|(_, other)| other == hint).count(), 1, "{hint}");
        }
    }
}
