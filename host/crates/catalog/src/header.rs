//! The first bytes of an upload. What can be told from them is told at once, before anything is stored; the rest is the
//! compiler's judgement.

use ports::component::Refusal;

/// How many bytes [`check`] wants to see.
pub(crate) const HEADER_BYTES: usize = 8;

const MAGIC: &[u8] = b"\0asm";
/// Layer 1 (component) in the two bytes that follow the 16-bit version (component model: `Binary.md`, preamble).
const COMPONENT_LAYER: [u8; 2] = [1, 0];
const CORE_LAYER: [u8; 2] = [0, 0];

/// Looks at the start of an upload; `start` holds [`HEADER_BYTES`], or less where the upload is shorter than that.
pub(crate) fn check(start: &[u8]) -> Result<(), Refusal> {
    let refuse = |code: &str, message: String| {
        Err(Refusal {
            code: code.to_owned(),
            message,
        })
    };
    if start.is_empty() {
        return refuse("component_not_wasm", "the upload is empty".to_owned());
    }
    if !start.starts_with(MAGIC) {
        let what = if start.starts_with(b"(component") || start.starts_with(b"(module") {
            "it is WebAssembly text; upload the binary form"
        } else if start.starts_with(b"\x7fELF") {
            "it is a native program; build it with `--target wasm32-wasip2`"
        } else if start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x1f\x8b") {
            "it is an archive; upload the `.wasm` file itself"
        } else {
            "it does not start with the bytes `\\0asm`"
        };
        return refuse("component_not_wasm", format!("the upload is not WebAssembly: {what}"));
    }
    match start.get(6..8) {
        Some(layer) if *layer == COMPONENT_LAYER => Ok(()),
        Some(layer) if *layer == CORE_LAYER => refuse(
            "component_is_core_module",
            "the upload is a core WebAssembly module, not a component: build it with `--target wasm32-wasip2`"
                .to_owned(),
        ),
        Some(_) => refuse(
            "component_not_wasm",
            "the upload is WebAssembly of a kind that this server does not know".to_owned(),
        ),
        None => refuse(
            "component_not_wasm",
            "the upload ends within its first eight bytes".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(start: &[u8]) -> Option<String> {
        check(start).err().map(|refusal| refusal.code)
    }

    #[test]
    fn tells_components_from_everything_else() {
        assert_eq!(code(b"\0asm\x0d\0\x01\0"), None);
        assert_eq!(code(b"\0asm\x01\0\0\0").as_deref(), Some("component_is_core_module"));
        for hostile in [
            &b""[..],
            b"\0as",
            b"\0asm\x0d\0\x01",
            b"\0asm\x0d\0\x07\0",
            b"\x7fELF\x02\x01\x01\0",
            b"PK\x03\x04....",
            b"<html>..",
        ] {
            assert_eq!(code(hostile).as_deref(), Some("component_not_wasm"), "{hostile:?}");
        }
    }
}
