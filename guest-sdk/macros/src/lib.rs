//! The macros of `airtight-sdk`. They are documented and re-exported there; nobody depends on this crate directly.

mod data;
mod labels;
mod task;

use proc_macro::TokenStream;

/// Makes a plain function a task of the component.
///
/// The function takes no argument or one, the input, and returns anything that can be a task's answer, alone or in a
/// `Result`. Its doc comment becomes the task's description, its name the task's name unless `#[task(name = "…")]` says
/// otherwise. The function itself stays as it is and can be called and tested like any other.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// #[data]
/// struct Numbers {
///     values: Vec<f64>,
/// }
///
/// /// Adds numbers up.
/// #[task]
/// fn sum(input: Numbers) -> Result<f64> {
///     Ok(input.values.iter().sum())
/// }
///
/// /// Says hello, under a name that is no Rust identifier.
/// #[task(name = "say-hello")]
/// fn hello() -> String {
///     "hello".to_owned()
/// }
/// # assert_eq!(sum(Numbers { values: vec![1.0, 2.0] }).unwrap(), 3.0);
/// # assert_eq!(airtight_sdk::testing::describe()["tasks"][0]["name"], "say-hello");
/// ```
///
/// Two tasks of a crate cannot have the same name, in whatever modules they are:
///
/// ```compile_fail,E0428
/// # use airtight_sdk::prelude::*;
/// mod first {
///     # use airtight_sdk::prelude::*;
///     #[task]
///     fn load() {}
/// }
/// mod second {
///     # use airtight_sdk::prelude::*;
///     #[task(name = "load")]
///     fn load_other() {}
/// }
/// ```
#[proc_macro_attribute]
pub fn task(args: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(args.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Derives what a type needs to be a task's input or output: serde's `Serialize` and `Deserialize`, and `JsonSchema`.
///
/// It is a shorthand for the three derives that needs no dependency besides `airtight-sdk`. Attributes of serde and
/// schemars work as usual.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// #[data]
/// #[derive(Debug, PartialEq)]
/// struct Split {
///     /// The share of rows to keep aside.
///     #[serde(default)]
///     holdout: f64,
/// }
/// # assert_eq!(airtight_sdk::serde_json::from_str::<Split>("{}").unwrap(), Split { holdout: 0.0 });
/// ```
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    data::expand(&args.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes an enum without fields the labels of a branch task.
///
/// A variant's label is its name in `snake_case`, unless `#[label("…")]` says otherwise.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// #[derive(Labels)]
/// enum Gate {
///     Accept,
///     #[label("send-back")]
///     Reject,
/// }
/// # assert_eq!(Gate::labels(), ["accept", "send-back"]);
/// # assert_eq!(Gate::Reject.label(), "send-back");
/// ```
#[proc_macro_derive(Labels, attributes(label))]
pub fn labels(item: TokenStream) -> TokenStream {
    labels::expand(item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
