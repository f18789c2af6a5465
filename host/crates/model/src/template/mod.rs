//! Templates in task inputs: Jinja expressions (minijinja) in the strings of a JSON tree.
//!
//! What a template names is known before anything runs: the tasks behind `xcom` are read from the parsed expression, and a
//! name that only a run could compute is refused. A value that is exactly one expression keeps its type, and where it is
//! nothing but a path, the producer's JSON text arrives digit for digit. What was rendered is never rendered again.

mod analyse;
mod context;
mod language;
mod path;
mod render;
mod value;
mod walk;

pub use analyse::{InputTemplate, Source, TemplateError, XcomRef, XcomUse};
pub(crate) use analyse::{RETURN_VALUE, is_template};
pub use context::{TemplateContext, XcomInput};
pub use path::Segment;
pub(crate) use path::show as show_path;
pub use render::{RenderError, RenderFault};

#[cfg(test)]
mod tests;
