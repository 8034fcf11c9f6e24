//! Implements `#[derive(EventData)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Field, Fields, GenericParam, LitStr};

use crate::plain_name;

pub(crate) fn derive(input: &DeriveInput) -> syn::Result<TokenStream> {
    let data = &input.ident;
    let refuse = |why: &str| Err(syn::Error::new_spanned(&input.ident, why));
    let (lifetime, of_type) = match input.generics.params.iter().collect::<Vec<_>>()[..] {
        [] => (quote!('lantern), quote!()),
        [GenericParam::Lifetime(parameter)] => {
            let lifetime = &parameter.lifetime;
            (quote!(#lifetime), quote!(<#lifetime>))
        }
        _ => return refuse("`EventData` can be derived for a struct with at most one lifetime"),
    };
    let Data::Struct(fields) = &input.data else {
        return refuse("`EventData` can be derived for a struct only");
    };
    let Fields::Named(fields) = &fields.fields else {
        return refuse("`EventData` needs fields with names");
    };
    let mut members = Vec::new();
    let mut read = Vec::new();
    for (index, field) in fields.named.iter().enumerate() {
        let (Some(ident), ty) = (&field.ident, &field.ty) else {
            continue;
        };
        let name = renamed(field)?.unwrap_or_else(|| plain_name(ident));
        members.push(quote! {
            ::lantern_sdk::Member {
                name: #name,
                kind: <#ty as ::lantern_sdk::MemberValue<#lifetime>>::KIND,
            }
        });
        read.push(quote!(#ident: members.get(#index, &Self::MEMBERS[#index])?));
    }
    Ok(quote! {
        impl<#lifetime> ::lantern_sdk::EventData<#lifetime> for #data #of_type {
            const MEMBERS: &'static [::lantern_sdk::Member] = &[#(#members),*];

            fn read(
                members: &::lantern_sdk::__private::Members<#lifetime, '_>,
            ) -> ::std::result::Result<Self, ::lantern_sdk::Error> {
                ::std::result::Result::Ok(Self { #(#read,)* })
            }
        }
    })
}

fn renamed(field: &Field) -> syn::Result<Option<String>> {
    let mut name = None;
    for attribute in field.attrs.iter().filter(|it| it.path().is_ident("member")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("expected `name = \"…\"`"));
            }
            name = Some(meta.value()?.parse::<LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(name)
}
