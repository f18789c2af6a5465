//! `#[task]`: leaves the function alone and registers it beside it.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Meta, ReturnType, Type};

struct Args {
    name: Option<LitStr>,
}

pub(crate) fn expand(args: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let args = parse_args(args)?;
    let function: ItemFn = syn::parse2(item)?;
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(Error::new(
            token.span,
            "a task is not `async`: it has its sandbox to itself and may simply block",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a task cannot be generic: its schemas must be known",
        ));
    }
    if signature.inputs.len() > 1 {
        return Err(Error::new(
            signature.inputs.span(),
            "a task takes no argument or one, its input: make a struct with `#[data]` of the arguments",
        ));
    }

    let ident = &signature.ident;
    let name = match &args.name {
        Some(name) => name.value(),
        None => ident.to_string().trim_start_matches("r#").to_owned(),
    };
    let name_span = args.name.as_ref().map_or_else(|| ident.span(), Spanned::span);
    check_name(&name, name_span)?;
    let doc = doc_text(&function.attrs);

    let (input_schema, call) = match signature.inputs.first() {
        None => (
            quote!(::airtight_sdk::__private::any_input),
            quote!({ let _ = input; #ident() }),
        ),
        Some(FnArg::Receiver(receiver)) => {
            return Err(Error::new(receiver.span(), "a task is a plain function, not a method"));
        }
        Some(FnArg::Typed(argument)) => {
            let ty = &argument.ty;
            if let Type::Reference(reference) = &**ty {
                return Err(Error::new(reference.span(), "a task owns its input: take it by value"));
            }
            (
                quote_spanned!(ty.span()=> ::airtight_sdk::__private::input_schema::<#ty>),
                quote_spanned!(ty.span()=> #ident(::airtight_sdk::__private::parse_input::<#ty>(input)?)),
            )
        }
    };
    let (output, returned) = match &signature.output {
        ReturnType::Default => (
            quote!(()),
            quote!(::core::result::Result::Ok::<(), ::airtight_sdk::Failure>(#call)),
        ),
        ReturnType::Type(_, ty) if is_result(ty) => (
            quote_spanned!(ty.span()=> <#ty as ::airtight_sdk::__private::Fallible>::Value),
            quote_spanned!(ty.span()=> ::airtight_sdk::__private::Fallible::into_result(#call)),
        ),
        ReturnType::Type(_, ty) => (
            quote_spanned!(ty.span()=> #ty),
            quote!(::core::result::Result::Ok::<_, ::airtight_sdk::Failure>(#call)),
        ),
    };
    let run = format_ident!("__airtight_run_{}", ident.to_string().trim_start_matches("r#"));
    let unique = Ident::new(&format!("__airtight_task_{}", identifier(&name)), name_span);

    Ok(quote! {
        #function

        // Exported macros share one namespace, that of the crate: a second task of this name is an error of the compiler.
        #[doc(hidden)]
        #[allow(non_local_definitions, reason = "it stands beside the task, wherever that is")]
        #[macro_export]
        macro_rules! #unique { () => {}; }

        #[doc(hidden)]
        fn #run(input: &str) -> ::core::result::Result<::airtight_sdk::__private::Answer, ::airtight_sdk::Failure> {
            ::airtight_sdk::__private::answer::<#output>(#returned)
        }

        ::airtight_sdk::__private::inventory::submit! {
            ::airtight_sdk::__private::TaskEntry {
                name: #name,
                doc: #doc,
                input: #input_schema,
                output: <#output as ::airtight_sdk::TaskOutput>::schema,
                labels: <#output as ::airtight_sdk::TaskOutput>::labels,
                run: #run,
            }
        }
    })
}

fn parse_args(args: TokenStream) -> syn::Result<Args> {
    let mut name = None;
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("name") {
            name = Some(meta.value()?.parse::<LitStr>()?);
            Ok(())
        } else {
            Err(meta.error("unknown argument; a task knows `name = \"…\"`"))
        }
    });
    syn::parse::Parser::parse2(parser, args)?;
    Ok(Args { name })
}

/// The name as a part of an identifier, another one for each name.
fn identifier(name: &str) -> String {
    name.replace('-', "_dash_").replace('.', "_dot_")
}

fn check_name(name: &str, span: proc_macro2::Span) -> syn::Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 250
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if valid {
        Ok(())
    } else {
        Err(Error::new(
            span,
            "a task name has 1 to 250 letters, digits, `_`, `-` or `.`",
        ))
    }
}

/// Decided by name, since a macro sees no types: `Result<…>`, `io::Result<…>`, `anyhow::Result<…>`.
fn is_result(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Result"))
}

fn doc_text(attributes: &[Attribute]) -> String {
    let lines: Vec<String> = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit {
                    lit: Lit::Str(text), ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    let lines: Vec<&str> = lines
        .iter()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect();
    lines.join("\n").trim().to_owned()
}
