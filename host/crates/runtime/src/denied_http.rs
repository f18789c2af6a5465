//! `wasi:http` 0.2 for components whose language runtime brings it, such as JavaScript's `fetch`: all of it is linked, and no
//! request leaves.
//!
//! The functions are made out of the component's own types, so no patch version of the package is missing. Requests, headers and
//! bodies are handles with nothing behind them; what can only be answered by a network is denied.

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentItem, Type};
use wasmtime::component::{Component, Linker, Resource, ResourceAny, ResourceType, Val};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};

/// Our name of the package, without an interface.
const PACKAGE: &str = "wasi:http/";
/// Everything of it is denied.
const HANDLER: &str = "wasi:http/outgoing-handler@";
/// The case of `error-code` that says it best.
const DENIED_CASE: &str = "HTTP-request-denied";
/// Parts of one answer: more are no type of this package.
const MAX_PARTS: u32 = 1_000;

/// What is inside of `ok` and `error`.
type Payload = Option<Box<Val>>;

/// The type of all handles of the package.
struct Nothing;

/// An answer that only a network could give, or of a type that is not of this package. It unwinds the guest.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is denied: a task has no grant for HTTP")]
struct Denied(String);

/// Whether the component imports any of the package.
pub(crate) fn is_imported(component: &Component) -> bool {
    let engine = component.engine();
    let world = component.component_type();
    world.imports(engine).any(|(name, _)| name.starts_with(PACKAGE))
}

/// Links what the component imports of the package; `note` is told what was denied.
pub(crate) fn link<T: 'static>(
    linker: &mut Linker<T>,
    component: &Component,
    note: fn(&mut T, &str),
) -> wasmtime::Result<()> {
    let engine = component.engine();
    let of_io = resources_of_io(component);
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        if !name.starts_with(PACKAGE) {
            continue;
        }
        let is_handler = name.starts_with(HANDLER);
        let mut instance = linker.instance(name)?;
        for (item, export) in interface.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) => {
                    let function = format!("{name}#{item}");
                    instance.func_new(item, move |mut store, ty, given, results| {
                        for value in given {
                            let_go(&mut store, value)?;
                        }
                        let mut answer = Answer {
                            store: &mut store,
                            is_handler,
                            denied: false,
                            parts: 0,
                        };
                        let made: Option<Vec<Val>> = ty.results().map(|ty| answer.of(&ty)).collect();
                        let denied = answer.denied || made.is_none();
                        if denied {
                            note(store.data_mut(), &format!("calling `{function}`"));
                        }
                        for (slot, value) in results.iter_mut().zip(made.ok_or_else(|| Denied(function.clone()))?) {
                            *slot = value;
                        }
                        Ok(())
                    })?;
                }
                ComponentItem::Resource(ty) => {
                    let found = of_io.iter().find(|(of_component, _)| *of_component == ty);
                    let ours = found.map_or(ResourceType::host::<Nothing>(), |(_, of_host)| *of_host);
                    instance.resource(item, ours, |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Gives up the handles that a call brings: a borrowed one must be gone when the call returns.
fn let_go<T: 'static>(store: &mut StoreContextMut<'_, T>, value: &Val) -> wasmtime::Result<()> {
    match value {
        Val::Resource(handle) => {
            let (handle, ty) = (*handle, handle.ty());
            if ty == ResourceType::host::<Nothing>() {
                handle.try_into_resource::<Nothing>(store).map(drop)
            } else if ty == ResourceType::host::<DynInputStream>() {
                handle.try_into_resource::<DynInputStream>(store).map(drop)
            } else if ty == ResourceType::host::<DynOutputStream>() {
                handle.try_into_resource::<DynOutputStream>(store).map(drop)
            } else if ty == ResourceType::host::<DynPollable>() {
                handle.try_into_resource::<DynPollable>(store).map(drop)
            } else if ty == ResourceType::host::<wasmtime::Error>() {
                handle.try_into_resource::<wasmtime::Error>(store).map(drop)
            } else {
                Ok(())
            }
        }
        Val::Option(Some(value)) | Val::Variant(_, Some(value)) => let_go(store, value),
        Val::Result(Ok(Some(value)) | Err(Some(value))) => let_go(store, value),
        Val::List(values) | Val::Tuple(values) => values.iter().try_for_each(|value| let_go(store, value)),
        Val::Record(fields) => fields.iter().try_for_each(|(_, value)| let_go(store, value)),
        _ => Ok(()),
    }
}

/// The resources of `wasi:io` that the component imports, which `wasi:http` uses: as the component names them, and as the host does.
fn resources_of_io(component: &Component) -> Vec<(ResourceType, ResourceType)> {
    let engine = component.engine();
    let mut all = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else {
            continue;
        };
        if !name.starts_with("wasi:io/") {
            continue;
        }
        for (item, export) in interface.exports(engine) {
            let ComponentItem::Resource(of_component) = export.ty else {
                continue;
            };
            let of_host = match item {
                "input-stream" => ResourceType::host::<DynInputStream>(),
                "output-stream" => ResourceType::host::<DynOutputStream>(),
                "pollable" => ResourceType::host::<DynPollable>(),
                "error" => ResourceType::host::<wasmtime::Error>(),
                _ => continue,
            };
            all.push((of_component, of_host));
        }
    }
    all
}

/// Makes the answer of one call.
struct Answer<'a, 'b, T: 'static> {
    store: &'a mut StoreContextMut<'b, T>,
    is_handler: bool,
    denied: bool,
    parts: u32,
}

impl<T> Answer<'_, '_, T> {
    /// A value of the type. None where there is none without a network.
    fn of(&mut self, ty: &Type) -> Option<Val> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return None;
        }
        Some(match ty {
            Type::Bool => Val::Bool(false),
            Type::S8 => Val::S8(0),
            Type::U8 => Val::U8(0),
            Type::S16 => Val::S16(0),
            Type::U16 => Val::U16(0),
            Type::S32 => Val::S32(0),
            Type::U32 => Val::U32(0),
            Type::S64 => Val::S64(0),
            Type::U64 => Val::U64(0),
            Type::Float32 => Val::Float32(0.0),
            Type::Float64 => Val::Float64(0.0),
            Type::Char => Val::Char('\0'),
            Type::String => Val::String(String::new()),
            Type::List(_) => Val::List(Vec::new()),
            Type::Option(_) => Val::Option(None),
            Type::Flags(_) => Val::Flags(Vec::new()),
            Type::Enum(cases) => Val::Enum(cases.names().next()?.to_owned()),
            Type::Record(record) => {
                let fields = record.fields();
                let fields: Option<Vec<_>> = fields
                    .map(|field| Some((field.name.to_owned(), self.of(&field.ty)?)))
                    .collect();
                Val::Record(fields?)
            }
            Type::Tuple(tuple) => {
                let members: Option<Vec<_>> = tuple.types().map(|ty| self.of(&ty)).collect();
                Val::Tuple(members?)
            }
            Type::Variant(variant) => {
                let mut cases = variant.cases();
                let (name, ty) = {
                    let first = cases.next()?;
                    let denied = cases.find(|case| case.name == DENIED_CASE);
                    let chosen = denied.unwrap_or(first);
                    (chosen.name.to_owned(), chosen.ty)
                };
                let payload = ty.map(|ty| self.of(&ty).map(Box::new));
                Val::Variant(name, payload.map_or(Some(None), |payload| payload.map(Some))?)
            }
            Type::Result(result) => Val::Result(self.result(result.ok(), result.err())?),
            Type::Own(ty) if *ty == ResourceType::host::<Nothing>() => {
                let handle = Resource::<Nothing>::new_own(0);
                Val::Resource(ResourceAny::try_from_resource(handle, &mut *self.store).ok()?)
            }
            _ => return None,
        })
    }

    /// `ok` where nothing but handles of this package is asked for, else the error.
    fn result(&mut self, ok: Option<Type>, err: Option<Type>) -> Option<Result<Payload, Payload>> {
        let is_ours = match &ok {
            None => true,
            Some(Type::Own(ty)) => *ty == ResourceType::host::<Nothing>(),
            Some(_) => false,
        };
        if is_ours && !self.is_handler {
            let value = ok.map(|ty| self.of(&ty).map(Box::new));
            return Some(Ok(value.map_or(Some(None), |value| value.map(Some))?));
        }
        self.denied = true;
        let error = err.map(|ty| self.of(&ty).map(Box::new));
        Some(Err(error.map_or(Some(None), |error| error.map(Some))?))
    }
}
