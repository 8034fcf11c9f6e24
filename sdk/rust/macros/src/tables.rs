//! Implements `#[derive(Tables)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, DeriveInput, Expr, ExprLit, Field, Lit, LitInt, LitStr, Meta};

use crate::{named_fields, plain_name};

const UNITS_US: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

#[derive(Default)]
struct Options {
    skip: bool,
    private: bool,
    per_tenant: bool,
    name: Option<String>,
    newest_by: Option<String>,
    retention_us: Option<u64>,
    cache_rows: Option<usize>,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let owner = &input.ident;
    let mut specs = Vec::new();
    let mut opened = Vec::new();
    let mut tables = Vec::new();
    for (ident, field) in named_fields(input, "Tables")? {
        let options = options(field)?;
        if options.skip {
            opened.push(quote!(#ident: ::std::default::Default::default()));
            continue;
        }
        let place = specs.len();
        specs.push(spec(place as u32, ident, field, options));
        opened.push(quote! {
            #ident: ::lantern_sdk::__private::TableField::open(
                &<Self as ::lantern_sdk::Tables>::SPECS[#place],
            )
        });
        tables.push(ident);
    }
    Ok(quote! {
        impl ::lantern_sdk::Tables for #owner {
            const SPECS: &'static [::lantern_sdk::__private::TableSpec] = &[#(#specs),*];

            fn open() -> Self {
                Self { #(#opened,)* }
            }

            fn flush(
                &mut self,
            ) -> ::std::result::Result<(), ::lantern_sdk::__private::FlushError> {
                #(::lantern_sdk::__private::TableField::flush(&mut self.#tables)?;)*
                ::std::result::Result::Ok(())
            }

            fn check(&mut self) -> ::std::result::Result<(), ::lantern_sdk::Error> {
                #(::lantern_sdk::__private::TableField::check(&mut self.#tables)?;)*
                ::std::result::Result::Ok(())
            }
        }
    })
}

/// Generates the `TableSpec` of one table.
fn spec(id: u32, ident: &syn::Ident, field: &Field, options: Options) -> TokenStream {
    let ty = &field.ty;
    let name = options.name.unwrap_or_else(|| plain_name(ident));
    let description = description(&field.attrs);
    let (public, per_tenant) = (!options.private, options.per_tenant);
    let fields = if public {
        quote!(<#ty as ::lantern_sdk::__private::PublicTable>::FIELDS)
    } else {
        quote!(&[])
    };
    let newest_by = match options.newest_by {
        Some(field) => quote!(::std::option::Option::Some(#field)),
        None => quote!(::std::option::Option::None),
    };
    let retention = match options.retention_us {
        Some(us) => quote!(::std::option::Option::Some(#us)),
        None => quote!(::std::option::Option::None),
    };
    let cache_rows = match options.cache_rows {
        Some(rows) => quote!(#rows),
        None => quote!(::lantern_sdk::CACHE_ROWS),
    };
    quote! {
        ::lantern_sdk::__private::TableSpec {
            id: #id,
            name: #name,
            description: #description,
            public: #public,
            per_tenant: #per_tenant,
            fields: #fields,
            newest_by: #newest_by,
            retention_us: #retention,
            cache_rows: #cache_rows,
        }
    }
}

fn options(field: &Field) -> syn::Result<Options> {
    let mut options = Options::default();
    for attribute in field.attrs.iter().filter(|it| it.path().is_ident("table")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("skip") {
                options.skip = true;
            } else if meta.path.is_ident("private") {
                options.private = true;
            } else if meta.path.is_ident("per_tenant") {
                options.per_tenant = true;
            } else if meta.path.is_ident("name") {
                options.name = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("newest_by") {
                options.newest_by = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("retention") {
                options.retention_us = Some(duration_us(&meta.value()?.parse()?)?);
            } else if meta.path.is_ident("cache") {
                options.cache_rows = Some(meta.value()?.parse::<LitInt>()?.base10_parse()?);
            } else {
                return Err(meta.error(
                    "expected `private`, `per_tenant`, `newest_by = \"…\"`, \
                     `retention = \"7d\"`, `name = \"…\"`, `cache = …` or `skip`",
                ));
            }
            Ok(())
        })?;
    }
    Ok(options)
}

/// Parses a duration such as `90s` or `7d`, and returns it in microseconds.
fn duration_us(text: &LitStr) -> syn::Result<u64> {
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let unit = UNITS_US.iter().find(|(name, _)| *name == unit);
    let number = number.parse::<u64>().ok();
    number.zip(unit).and_then(|(number, (_, unit))| number.checked_mul(*unit)).ok_or_else(|| {
        let why = "expected a number and `us`, `ms`, `s`, `m`, `h` or `d`, like \"7d\"";
        syn::Error::new_spanned(text, why)
    })
}

/// Joins the lines of a doc comment to one line.
fn description(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        let Meta::NameValue(meta) = &attribute.meta else {
            continue;
        };
        if !meta.path.is_ident("doc") {
            continue;
        }
        if let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &meta.value {
            lines.push(line.value().trim().to_owned());
        }
    }
    lines.join(" ").trim().to_owned()
}
