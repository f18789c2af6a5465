//! `#[data]`: the three derives, pointed at the SDK's own copies of serde and schemars.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Error};

pub(crate) fn expand(args: &TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    if !args.is_empty() {
        return Err(Error::new_spanned(
            args,
            "`#[data]` takes no arguments; use `#[serde(…)]` beside it",
        ));
    }
    let input: DeriveInput = syn::parse2(item)?;
    Ok(quote! {
        #[derive(
            ::airtight_sdk::serde::Serialize,
            ::airtight_sdk::serde::Deserialize,
            ::airtight_sdk::schemars::JsonSchema,
        )]
        #[serde(crate = "::airtight_sdk::serde")]
        #[schemars(crate = "::airtight_sdk::schemars")]
        #input
    })
}
