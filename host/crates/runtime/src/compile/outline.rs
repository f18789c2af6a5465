//! What a component imports and exports, read from its outline in milliseconds: what this server lacks is refused before the
//! compiler sees a single function.

use ports::component::Refusal;
use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::Types;
use wasmparser::{Parser, Payload, ValidPayload, Validator};

use super::protocol::refusal;
use super::{check, newer};

/// Refuses a component for its imports, or for a `guest` that it does not export. What is no valid component is left to the
/// compiler, which says better what is wrong with it.
pub(super) fn check(wasm: &[u8]) -> Result<(), Refusal> {
    let Some(outline) = Outline::read(wasm) else {
        return Ok(());
    };
    if let Some(unknown) = outline.imports.iter().find(|import| !check::is_known(import)) {
        return Err(check::unknown_import(unknown));
    }
    let missing = |import: &String| {
        let functions = outline.functions(import);
        newer::missing_in(import, functions.iter().map(String::as_str))
    };
    if let Some(missing) = outline.imports.iter().find_map(missing) {
        return Err(refusal("component_import_unknown", missing));
    }
    if outline.exports.iter().any(|export| check::is_guest(export)) {
        Ok(())
    } else {
        Err(check::wrong_export(&outline.exports, ""))
    }
}

/// The names at a component's border, and their types.
struct Outline {
    imports: Vec<String>,
    exports: Vec<String>,
    types: Types,
}

impl Outline {
    /// Reads all but the bodies of functions. None where the component is not valid.
    fn read(wasm: &[u8]) -> Option<Self> {
        let mut validator = Validator::new();
        let (mut imports, mut exports) = (Vec::new(), Vec::new());
        // Modules and components inside of it have borders of their own.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.ok()?;
            match &payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section.clone() {
                        imports.push(import.ok()?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section.clone() {
                        exports.push(export.ok()?.name.name.to_owned());
                    }
                }
                _ => {}
            }
            // The last end is that of the whole.
            if let ValidPayload::End(types) = validator.payload(&payload).ok()?
                && depth == 0
            {
                return Some(Self {
                    imports,
                    exports,
                    types,
                });
            }
        }
        None
    }

    /// The functions that are imported of an interface.
    fn functions(&self, import: &str) -> Vec<String> {
        let Some(ComponentEntityType::Instance(instance)) =
            self.types.component_item_for_import(import).map(|item| item.ty)
        else {
            return Vec::new();
        };
        let exports = &self.types[instance].exports;
        exports
            .iter()
            .filter(|(_, item)| matches!(item.ty, ComponentEntityType::Func(_)))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<String> {
        let wasm = wat::parse_str(text).unwrap();
        check(&wasm).err().map(|refusal| refusal.code)
    }

    #[test]
    fn reads_the_border_of_the_outermost_component_alone() {
        let inner = r#"(component
            (component (import "acme:inner/thing@1.0.0" (instance)))
            (import "airtight:task/xcom@0.1.0" (instance (export "push" (func))))
            (instance $guest)
            (export "airtight:task/guest@0.1.0" (instance $guest)))"#;
        assert_eq!(code(inner), None);
        assert_eq!(code("(component)").as_deref(), Some("component_world_mismatch"));
        let unknown = r#"(component (import "acme:things/robot@1.0.0" (instance)))"#;
        assert_eq!(code(unknown).as_deref(), Some("component_import_unknown"));
        let newer = r#"(component (import "airtight:task/xcom@0.1.9" (instance (export "peek" (func)))))"#;
        assert_eq!(code(newer).as_deref(), Some("component_import_unknown"));
    }

    #[test]
    fn what_is_not_valid_is_left_to_the_compiler() {
        for bytes in [&b""[..], b"\0asm\x0d\0\x01\0\x07", b"hello"] {
            check(bytes).unwrap();
        }
    }
}
