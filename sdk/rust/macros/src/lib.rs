//! Implements the macros of `lantern-sdk`: the derive macros `Row`, `Tables` and `EventData`, and
//! the macro that `time_zone!` uses. `lantern-sdk` documents each derive macro with the trait that
//! it implements.

#[path = "../../src/zone/names.rs"]
mod names;

mod members;
mod row;
mod tables;

use proc_macro::TokenStream;
use quote::ToTokens;
use syn::{Data, DeriveInput, Field, Fields, Ident, LitByteStr, LitStr, parse_macro_input};

/// Implements `Stored` and `Row`; see `lantern_sdk::Row`.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    row::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `EventData`; see `lantern_sdk::EventData`.
#[proc_macro_derive(EventData, attributes(member))]
pub fn derive_event_data(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    members::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Implements `Tables`; see `lantern_sdk::Tables`.
#[proc_macro_derive(Tables, attributes(table))]
pub fn derive_tables(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    tables::derive(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Returns the data of one time zone; see `lantern_sdk::time_zone`.
#[doc(hidden)]
#[proc_macro]
pub fn zone_bytes(input: TokenStream) -> TokenStream {
    static ZONES: &[u8] = include_bytes!("../../zones.bin");
    let name = parse_macro_input!(input as LitStr);
    match names::find(ZONES, &name.value()) {
        Some(bytes) => LitByteStr::new(bytes, name.span()).into_token_stream().into(),
        None => {
            let why = "no time zone of the IANA database, such as \"Europe/Berlin\"";
            syn::Error::new_spanned(&name, why).into_compile_error().into()
        }
    }
}

/// Returns the fields of a struct. The struct must have named fields and no generic parameters.
fn named_fields<'a>(
    input: &'a DeriveInput,
    derive: &str,
) -> syn::Result<Vec<(&'a Ident, &'a Field)>> {
    let refuse = |why: &str| Err(syn::Error::new_spanned(&input.ident, why));
    if !input.generics.params.is_empty() {
        return refuse(&format!("`{derive}` cannot be derived for a generic struct"));
    }
    let Data::Struct(data) = &input.data else {
        return refuse(&format!("`{derive}` can be derived for a struct only"));
    };
    let Fields::Named(fields) = &data.fields else {
        return refuse(&format!("`{derive}` needs fields with names"));
    };
    let fields = fields.named.iter();
    Ok(fields.filter_map(|field| Some((field.ident.as_ref()?, field))).collect())
}

/// Returns a field's name without the prefix `r#` of a raw identifier.
fn plain_name(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").unwrap_or(&name).to_owned()
}
