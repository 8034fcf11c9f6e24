//! Implements `#[derive(Row)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Field, Ident, LitStr};

use crate::{named_fields, plain_name};

const MERGES: [(&str, &str); 6] = [
    ("same", "Same"),
    ("sum", "Sum"),
    ("min", "Min"),
    ("max", "Max"),
    ("newest", "Newest"),
    ("sketch", "Sketch"),
];

const KINDS: [(&str, &str); 8] = [
    ("integer", "Integer"),
    ("number", "Number"),
    ("text", "Text"),
    ("boolean", "Boolean"),
    ("timestamp", "Timestamp"),
    ("json", "Json"),
    ("distinct", "Distinct"),
    ("percentiles", "Percentiles"),
];

#[derive(Default)]
struct Options {
    unit: String,
    merge: Option<Ident>,
    kind: Option<Ident>,
}

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let row = &input.ident;
    let fields = named_fields(input, "Row")?;
    let mut declared = Vec::new();
    let mut written = Vec::new();
    let mut read = Vec::new();
    let mut checked = Vec::new();
    let mut fallible = Vec::new();
    for (place, (ident, field)) in fields.iter().enumerate() {
        let options = options(field)?;
        let name = plain_name(ident);
        let (unit, ty) = (&options.unit, &field.ty);
        let merge = match options.merge {
            Some(merge) => quote!(::lantern_sdk::Merge::#merge),
            None => quote!(<#ty as ::lantern_sdk::Value>::MERGE),
        };
        let kind = match options.kind {
            Some(kind) => quote!(::lantern_sdk::FieldKind::#kind),
            None => quote!(<#ty as ::lantern_sdk::Value>::KIND),
        };
        declared.push(quote! {
            ::lantern_sdk::Field {
                name: #name,
                kind: #kind,
                unit: #unit,
                merge: #merge,
            }
        });
        let before = format!("{}\"{name}\":", if place == 0 { '{' } else { ',' });
        read.push(quote! {
            #ident: {
                ::lantern_sdk::__private::take(&mut rest, #before.as_bytes())?;
                ::lantern_sdk::Value::read(&mut rest)?
            }
        });
        checked.push(quote! {
            ::lantern_sdk::Value::check(&self.#ident, #name)?;
        });
        fallible.push(quote!(<#ty as ::lantern_sdk::Value>::FALLIBLE));
        written.push(quote! {
            out.extend_from_slice(#before.as_bytes());
            ::lantern_sdk::Value::write(&self.#ident, #name, out)?;
        });
    }
    let end = if fields.is_empty() { "{}" } else { "}" };
    let decode = decode(&fields, &read, end);
    Ok(quote! {
        impl ::lantern_sdk::Stored for #row {
            fn encode(
                &self,
                out: &mut ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<(), ::lantern_sdk::RowError> {
                #(#written)*
                out.extend_from_slice(#end.as_bytes());
                ::std::result::Result::Ok(())
            }

            #decode

            const FALLIBLE: bool = false #(|| #fallible)*;

            fn check(&self) -> ::std::result::Result<(), ::lantern_sdk::RowError> {
                #(#checked)*
                ::std::result::Result::Ok(())
            }
        }

        impl ::lantern_sdk::Row for #row {
            const FIELDS: &'static [::lantern_sdk::Field] = &[#(#declared),*];
        }
    })
}

/// Generates the code that quickly reads a row whose text is exactly what `encode` writes. The code
/// calls `read` to remove the fields one by one from the beginning of the text, and only `end` may
/// be left then. If the text differs, serde reads the row.
fn decode(fields: &[(&Ident, &Field)], read: &[TokenStream], end: &str) -> TokenStream {
    let idents: Vec<_> = fields.iter().map(|(ident, _)| ident).collect();
    let types: Vec<_> = fields.iter().map(|(_, field)| &field.ty).collect();
    quote! {
        fn decode(bytes: &[u8]) -> ::std::result::Result<Self, ::lantern_sdk::RowError> {
            #[derive(::lantern_sdk::__private::serde::Deserialize)]
            #[serde(crate = "::lantern_sdk::__private::serde")]
            struct Kept {
                #(#idents: #types,)*
            }
            #[allow(unused_mut, reason = "there may be no fields")]
            let mut rest = bytes;
            let plain = (|| -> ::std::option::Option<Self> {
                let row = Self { #(#read,)* };
                (rest == #end.as_bytes()).then_some(row)
            })();
            if let ::std::option::Option::Some(row) = plain {
                return ::std::result::Result::Ok(row);
            }
            let kept: Kept = ::lantern_sdk::__private::from_json(bytes)?;
            let _ = &kept;
            ::std::result::Result::Ok(Self { #(#idents: kept.#idents,)* })
        }
    }
}

fn options(field: &Field) -> syn::Result<Options> {
    let mut options = Options::default();
    for attribute in field.attrs.iter().filter(|it| it.path().is_ident("row")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("unit") {
                options.unit = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("merge") {
                options.merge = Some(variant(&meta.value()?.parse()?, &MERGES)?);
            } else if meta.path.is_ident("kind") {
                options.kind = Some(variant(&meta.value()?.parse()?, &KINDS)?);
            } else {
                return Err(meta.error("expected `unit = \"…\"`, `merge = …` or `kind = …`"));
            }
            Ok(())
        })?;
    }
    Ok(options)
}

fn variant(word: &Ident, known: &[(&str, &str)]) -> syn::Result<Ident> {
    match known.iter().find(|(name, _)| word == name) {
        Some((_, variant)) => Ok(Ident::new(variant, word.span())),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            let why = format!("expected one of {}", names.join(", "));
            Err(syn::Error::new_spanned(word, why))
        }
    }
}
