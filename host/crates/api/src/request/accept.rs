//! `Accept`: which of the representations of an answer the caller wants.

use axum::http::{HeaderMap, header};

use crate::error::{ApiError, Code};

/// A representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json`
    Json,
    /// `application/x-ndjson`
    Ndjson,
    /// `text/plain`
    Text,
    /// `text/event-stream`
    Events,
}

impl Media {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Text => "text/plain; charset=utf-8",
            Self::Events => "text/event-stream",
        }
    }

    fn essence(self) -> &'static str {
        self.as_str().split(';').next().unwrap_or_default()
    }
}

/// The offered representation that the caller likes best; the first one offered where it does not care.
pub(crate) fn negotiate(headers: &HeaderMap, offered: &[Media]) -> Result<Media, ApiError> {
    let default = offered.first().copied().unwrap_or(Media::Json);
    let mut wishes: Vec<(String, f32)> = Vec::new();
    for value in headers.get_all(header::ACCEPT) {
        for wish in value.to_str().unwrap_or_default().split(',').take(32) {
            let mut parts = wish.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            if !range.is_empty() {
                wishes.push((range, quality));
            }
        }
    }
    if wishes.is_empty() {
        return Ok(default);
    }
    let quality = |media: Media| {
        let (kind, _) = media.essence().split_once('/').unwrap_or_default();
        let any_of_kind = format!("{kind}/*");
        let specific = |range: &str| {
            wishes
                .iter()
                .find(|(wish, _)| wish == range)
                .map(|(_, quality)| *quality)
        };
        specific(media.essence())
            .or_else(|| specific(&any_of_kind))
            .or_else(|| specific("*/*"))
            .unwrap_or(0.0)
    };
    let mut best = (default, 0.0);
    for media in offered {
        let quality = quality(*media);
        if quality > best.1 {
            best = (*media, quality);
        }
    }
    if best.1 > 0.0 {
        return Ok(best.0);
    }
    let names: Vec<&str> = offered.iter().map(|media| media.essence()).collect();
    Err(ApiError::new(
        Code::NotAcceptable,
        format!("this is answered as {} only", names.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(accept: &'static str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, axum::http::HeaderValue::from_static(accept));
        negotiate(&headers, &[Media::Json, Media::Ndjson, Media::Text]).ok()
    }

    #[test]
    fn picks_the_best_offer() {
        assert_eq!(pick("*/*"), Some(Media::Json));
        assert_eq!(pick("application/json"), Some(Media::Json));
        assert_eq!(
            pick("application/x-ndjson, application/json;q=0.5"),
            Some(Media::Ndjson)
        );
        assert_eq!(pick("text/*"), Some(Media::Text));
        assert_eq!(pick("image/png"), None);
        assert_eq!(pick("application/json;q=0"), None);
    }
}
