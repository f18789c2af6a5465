//! A component of a given size, for the upload: one of ours with its own code in it several times.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The header of a component.
const HEADER_BYTES: usize = 8;
/// The section that holds a core module.
const CORE_MODULE: u8 = 1;

/// Writes a component that does what `from` does and has at least `bytes`: its largest core module is repeated behind it. Nothing
/// instantiates the copies, and all of them are compiled.
pub(super) fn enlarge(from: &Path, bytes: usize, to: &Path) -> Result<()> {
    let mut component = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let module = largest_module(&component).with_context(|| format!("{} is no component with code", from.display()))?;
    while component.len() < bytes {
        component.extend_from_slice(&module);
    }
    std::fs::write(to, component).with_context(|| format!("cannot write {}", to.display()))
}

/// The largest section with a core module, its id and length included.
fn largest_module(component: &[u8]) -> Result<Vec<u8>> {
    let mut largest: &[u8] = &[];
    let mut rest = component.get(HEADER_BYTES..).unwrap_or_default();
    while let Some((id, after)) = rest.split_first() {
        let (length, head_bytes) = length(after)?;
        let end = 1 + head_bytes + length;
        let section = rest.get(..end).context("a section is cut off")?;
        if *id == CORE_MODULE && section.len() > largest.len() {
            largest = section;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    if largest.is_empty() {
        bail!("there is no core module");
    }
    Ok(largest.to_vec())
}

/// A length in LEB128, and how many bytes it takes.
fn length(bytes: &[u8]) -> Result<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    bail!("a length is not valid");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_module_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        component.extend_from_slice(&[CORE_MODULE, 1, 9, 7, 3, 1, 2, 3]);
        let mut module = vec![CORE_MODULE, 0x80, 2];
        module.extend([8; 256]);
        component.extend_from_slice(&module);
        std::fs::write(&from, &component).unwrap();
        enlarge(&from, component.len() + 300, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), [&component[..], &module, &module].concat());
        std::fs::write(&from, &component[..20]).unwrap();
        assert!(enlarge(&from, 100, &to).is_err());
    }
}
