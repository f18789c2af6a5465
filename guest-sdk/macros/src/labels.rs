//! `#[derive(Labels)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Variant};

pub(crate) fn expand(item: TokenStream) -> syn::Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "labels are the variants of an enum"));
    };
    if data.variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, "a branch needs at least one label"));
    }
    let mut idents = Vec::new();
    let mut labels: Vec<String> = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(&variant.fields, "a label has no fields"));
        }
        let label = label_of(variant)?;
        if labels.contains(&label) {
            return Err(Error::new_spanned(
                variant,
                format!("the label `{label}` is used twice"),
            ));
        }
        idents.push(&variant.ident);
        labels.push(label);
    }
    let ty = &input.ident;
    let (impl_generics, ty_generics, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #impl_generics ::airtight_sdk::Labels for #ty #ty_generics #bounds {
            fn labels() -> &'static [&'static str] {
                &[#(#labels),*]
            }
            fn label(&self) -> &'static str {
                match self {
                    #(Self::#idents => #labels,)*
                }
            }
        }
    })
}

fn label_of(variant: &Variant) -> syn::Result<String> {
    for attribute in &variant.attrs {
        if attribute.path().is_ident("label") {
            let text: LitStr = attribute.parse_args()?;
            if text.value().is_empty() {
                return Err(Error::new_spanned(text, "a label is not empty"));
            }
            return Ok(text.value());
        }
    }
    Ok(snake_case(&variant.ident.to_string()))
}

fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (index, c) in name.chars().enumerate() {
        if c.is_uppercase() && index > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
