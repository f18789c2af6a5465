//! Templates in task inputs: Jinja expressions (minijinja) in the strings of a JSON tree.
//!
//! What a template names is known before anything runs: the tasks behind `xcom` are read from the parsed expression, and a
//! name that only a run could compute is refused. A value that is exactly one expression keeps its type, and where it is
//! nothing but a path, the producer's JSON text arrives digit for digit. What was rendered is never rendered again.

mod analyse;
mod context;
mod element;
mod eval;
mod filters;
mod language;
mod ops;
mod path;
mod render;
mod value;
mod walk;

pub use analyse::RETURN_VALUE;
pub use analyse::{InputTemplate, Source, TemplateError, TemplateRoot, XcomRef, XcomUse};
pub(crate) use analyse::{PathUse, escape_pointer, is_template};
pub use context::{TemplateContext, XcomInput};
pub use element::{ElementError, mapped_length, split, with_members};
pub(crate) use path::show as show_path;
pub use path::{Segment, follow, follow_value};
pub use render::{RenderError, RenderFault};

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
