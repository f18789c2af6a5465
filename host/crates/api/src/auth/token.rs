//! JSON web tokens, HS256.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// How long a token lasts (Airflow: 24 h).
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For how long after its end a token says who somebody is that logs in.
const KNOWN_SECONDS: i64 = 30 * 24 * 3600;
/// What the tokens are for; a token of another service with the same key is refused.
const AUDIENCE: &str = "airtight";

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
}

pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl Tokens {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["sub", "aud", "exp"]);
        // Compared below with the clock that was passed in.
        validation.validate_exp = false;
        Self {
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
        }
    }

    pub(crate) fn issue(&self, user: &str, now: Timestamp) -> Result<String, ApiError> {
        self.issue_for(user, LIFETIME, now)
    }

    pub(crate) fn issue_for(&self, user: &str, lifetime: Duration, now: Timestamp) -> Result<String, ApiError> {
        let claims = Claims {
            sub: user.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: now.0.div_euclid(1_000_000),
            exp: now.plus(lifetime).0.div_euclid(1_000_000),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(ApiError::internal)
    }

    /// Recognises a token that was issued here within the last month: whoever has it has logged in then.
    pub(crate) fn knows(&self, token: &str, now: Timestamp) -> bool {
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        data.is_ok_and(|data| now.0.div_euclid(1_000_000) < data.claims.exp.saturating_add(KNOWN_SECONDS))
    }

    /// The user that the token was issued to.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<String> {
        let data = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?;
        (now.0.div_euclid(1_000_000) < data.claims.exp).then_some(data.claims.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_a_day_and_only_with_its_key() {
        let tokens = Tokens::new(b"0123456789abcdef0123456789abcdef");
        let now = Timestamp(1_800_000_000_000_000);
        let token = tokens.issue("admin", now).unwrap();
        assert_eq!(tokens.verify(&token, now).as_deref(), Some("admin"));
        assert_eq!(tokens.verify(&token, now.plus(LIFETIME)), None);
        let month = Duration::from_secs(30 * 24 * 3600);
        assert!(tokens.knows(&token, now.plus(LIFETIME)) && !tokens.knows(&token, now.plus(LIFETIME + month)));
        assert!(!Tokens::new(b"another key").knows(&token, now));
        let brief = tokens.issue_for("admin", Duration::from_secs(60), now).unwrap();
        assert_eq!(tokens.verify(&brief, now).as_deref(), Some("admin"));
        assert_eq!(tokens.verify(&brief, now.plus(Duration::from_secs(60))), None);
        assert_eq!(Tokens::new(b"another key").verify(&token, now), None);
        let (head, signature) = token.rsplit_once('.').unwrap();
        assert_eq!(tokens.verify(head, now), None);
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.{signature}", head.split_once('.').unwrap().1);
        assert_eq!(tokens.verify(&unsigned, now), None);
    }
}
