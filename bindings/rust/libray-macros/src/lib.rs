//! `#[libray::remote]`: see its documentation in the crate `libray`, which re-exports it.
//!
//! The macro writes no `unsafe` code and decides nothing about values: it makes a name, an entry in the program's
//! registry, and typed functions around `libray::__private`.
use proc_macro::TokenStream;
use proc_macro2::{Span, TokenStream as Tokens};
use quote::{format_ident, quote, quote_spanned};
use std::collections::HashMap;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Generics, Ident, ImplItem, ImplItemFn, Item, ItemFn, ItemImpl, LitInt,
    LitStr, Pat, PathArguments, Result, ReturnType, Signature, Token, Type, TypeParamBound, Visibility,
};

/// Makes a function, or the methods of an actor, callable in other processes. Documented where it is re-exported:
/// `libray::remote`.
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let written = Tokens::from(item.clone());
    let result = syn::parse::<Arguments>(arguments).and_then(|arguments| match syn::parse::<Item>(item)? {
        Item::Fn(function) => remote_function(&arguments, &function),
        Item::Impl(block) => remote_actor(&arguments, block),
        other => Err(Error::new(other.span(), "#[libray::remote] stands before a function or an impl block")),
    });
    // What was written stays, so that one fault is one error.
    result
        .unwrap_or_else(|e| {
            let error = e.into_compile_error();
            quote!(#written #error)
        })
        .into()
}

// ---- what stands in the parentheses -------------------------------------------------------------------------------

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    returns: Option<LitInt>,
    concurrent: Option<Span>,
    groups: Vec<(Ident, LitInt)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut out = Self::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "concurrent" => out.concurrent = Some(key.span()),
                "groups" => out.groups = groups_of(input)?,
                "name" => {
                    input.parse::<Token![=]>()?;
                    out.name = Some(input.parse()?);
                }
                "returns" => {
                    input.parse::<Token![=]>()?;
                    out.returns = Some(input.parse()?);
                }
                _ => {
                    return Err(Error::new(
                        key.span(),
                        "expected name = \"...\", returns = N, concurrent or groups(name = N)",
                    ))
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(out)
    }
}

/// `(io = 2, compute = 4)`: concurrency groups and how many calls of each run at once.
fn groups_of(input: ParseStream<'_>) -> Result<Vec<(Ident, LitInt)>> {
    let content;
    syn::parenthesized!(content in input);
    let mut out: Vec<(Ident, LitInt)> = Vec::new();
    while !content.is_empty() {
        let name: Ident = content.parse()?;
        content.parse::<Token![=]>()?;
        let limit: LitInt = content.parse()?;
        if limit.base10_parse::<u32>()? == 0 {
            return Err(Error::new(limit.span(), "a group runs one call at a time at least"));
        }
        if out.iter().any(|(other, _)| *other == name) {
            return Err(Error::new(name.span(), "two groups of one name"));
        }
        out.push((name, limit));
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(out)
}

/// Takes `#[group(io)]` off each method; the method's name and the number of its group, from 1 on.
fn take_groups(block: &mut ItemImpl, groups: &[(Ident, LitInt)]) -> Result<HashMap<String, u32>> {
    let mut out = HashMap::new();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        let is_group = |a: &Attribute| a.path().segments.last().is_some_and(|s| s.ident == "group");
        let Some(at) = function.attrs.iter().position(is_group) else { continue };
        let attribute = function.attrs.remove(at);
        let name: Ident = attribute.parse_args()?;
        let Some(place) = groups.iter().position(|(group, _)| *group == name) else {
            let text =
                format!("the class has no concurrency group {name}: #[libray::remote(concurrent, groups({name} = 2))]");
            return Err(Error::new(name.span(), text));
        };
        if function.sig.receiver().is_none() {
            return Err(Error::new(name.span(), "groups are for methods"));
        }
        out.insert(function.sig.ident.to_string(), place as u32 + 1);
    }
    Ok(out)
}

/// The name that something is registered under.
fn path_of(arguments: &Arguments, ident: &Ident) -> Tokens {
    match &arguments.name {
        Some(name) => quote!(#name),
        None => {
            let name = ident.to_string();
            let name = name.trim_start_matches("r#");
            quote!(::core::concat!(::core::module_path!(), "::", #name))
        }
    }
}

// ---- signatures ---------------------------------------------------------------------------------------------------

struct Parameter {
    ident: Ident,
    /// The type that is decoded.
    ty: Tokens,
    /// It is passed by reference.
    borrowed: bool,
}

/// What a function gives.
enum Gives {
    /// T, or Result<T, E> when it can fail.
    One { ty: Tokens, fails: bool },
    /// Items of T, or of Result<T, E>.
    Many { ty: Tokens, fails: bool },
    /// (T, ...), each a result of its own.
    Several { types: Vec<Type>, fails: bool },
}

struct Shape {
    parameters: Vec<Parameter>,
    gives: Gives,
    is_async: bool,
    /// Its one parameter is the call itself, which holds arguments and results.
    whole: bool,
}

fn no_type_parameters(generics: &Generics) -> Result<()> {
    match generics.params.iter().find(|p| !matches!(p, syn::GenericParam::Lifetime(_))) {
        None => Ok(()),
        Some(p) => Err(Error::new(p.span(), "a remote function has no type parameters: a worker is told a name alone")),
    }
}

/// T of a `Result<T, ...>` of any path.
fn result_of(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|s| s.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|a| if let GenericArgument::Type(t) = a { Some(t) } else { None })
}

/// T of an `impl Iterator<Item = T>`.
fn item_of(ty: &Type) -> Option<&Type> {
    let Type::ImplTrait(bounds) = ty else { return None };
    bounds.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|s| s.ident.to_string().ends_with("Iterator"))?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|a| match a {
            GenericArgument::AssocType(t) if t.ident == "Item" => Some(&t.ty),
            _ => None,
        })
    })
}

fn gives_of(output: &ReturnType, returns: Option<&LitInt>) -> Result<Gives> {
    let ty = match output {
        ReturnType::Default => return Ok(Gives::One { ty: quote!(()), fails: false }),
        ReturnType::Type(_, ty) => &**ty,
    };
    if let Some(item) = item_of(ty) {
        return Ok(match result_of(item) {
            Some(inner) => Gives::Many { ty: quote!(#inner), fails: true },
            None => Gives::Many { ty: quote!(#item), fails: false },
        });
    }
    if matches!(ty, Type::ImplTrait(_)) {
        return Err(Error::new(
            ty.span(),
            "of the impl types a remote function returns impl Iterator<Item = ...> alone",
        ));
    }
    let (inner, fails) = result_of(ty).map_or((ty, false), |inner| (inner, true));
    let Some(returns) = returns else { return Ok(Gives::One { ty: quote!(#inner), fails }) };
    match inner {
        Type::Tuple(tuple) if tuple.elems.len() == returns.base10_parse::<usize>()? && tuple.elems.len() > 1 => {
            Ok(Gives::Several { types: tuple.elems.iter().cloned().collect(), fails })
        }
        _ => Err(Error::new(
            returns.span(),
            format!("returns = {returns} wants a tuple of {returns} (at least 2) as the result"),
        )),
    }
}

fn parameter_of(pattern: &Pat, ty: &Type) -> Result<Parameter> {
    let Pat::Ident(pattern) = pattern else {
        return Err(Error::new(pattern.span(), "a parameter of a remote function is a plain name"));
    };
    let ident = pattern.ident.clone();
    Ok(match ty {
        Type::Reference(r) if r.mutability.is_some() => {
            return Err(Error::new(r.span(), "values travel: there is nothing here that a &mut could change"));
        }
        Type::Reference(r) => {
            let target = &r.elem;
            let ty = quote_spanned!(target.span()=> <#target as ::libray::__private::Borrowed>::Owned);
            Parameter { ident, ty, borrowed: true }
        }
        Type::ImplTrait(t) => {
            return Err(Error::new(
                t.span(),
                "a remote function has no type parameters: a worker is told a name alone",
            ));
        }
        other => Parameter { ident, ty: quote!(#other), borrowed: false },
    })
}

/// Whether this is `&mut Call`, of any path.
fn is_call(ty: &Type) -> bool {
    let Type::Reference(r) = ty else { return false };
    let Type::Path(path) = &*r.elem else { return false };
    r.mutability.is_some() && path.path.segments.last().is_some_and(|s| s.ident == "Call")
}

/// Of a function that takes the whole call; None if it does not.
fn whole_shape_of(signature: &Signature, returns: Option<&LitInt>) -> Result<Option<Shape>> {
    let mut typed = signature.inputs.iter().filter_map(|i| if let FnArg::Typed(t) = i { Some(t) } else { None });
    let (first, more) = (typed.next(), typed.next());
    if !first.is_some_and(|t| is_call(&t.ty)) {
        return Ok(None);
    }
    if let Some(more) = more {
        return Err(Error::new(more.span(), "a function that takes a &mut Call finds all its arguments in it"));
    }
    let gives = gives_of(&signature.output, None)?;
    if returns.is_some() || !matches!(gives, Gives::One { .. }) {
        return Err(Error::new(
            signature.output.span(),
            "a function that takes a &mut Call gives its results through it, and returns () or a Result<(), E>",
        ));
    }
    Ok(Some(Shape { parameters: Vec::new(), gives, is_async: signature.asyncness.is_some(), whole: true }))
}

fn shape_of(signature: &Signature, returns: Option<&LitInt>) -> Result<Shape> {
    no_type_parameters(&signature.generics)?;
    if let Some(whole) = whole_shape_of(signature, returns)? {
        return Ok(whole);
    }
    let parameters = signature
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => Some(parameter_of(&typed.pat, &typed.ty)),
        })
        .collect::<Result<Vec<_>>>()?;
    if matches!(signature.safety, syn::Safety::Unsafe(_)) {
        return Err(Error::new(
            signature.span(),
            "a remote function is not unsafe: its callers cannot see to its conditions",
        ));
    }
    let gives = gives_of(&signature.output, returns)?;
    Ok(Shape { parameters, gives, is_async: signature.asyncness.is_some(), whole: false })
}

impl Shape {
    /// `a: impl IntoArg<A>, ...`
    fn declared(&self) -> Tokens {
        let declared =
            self.parameters.iter().map(|Parameter { ident, ty, .. }| quote!(#ident: impl ::libray::IntoArg<#ty>));
        quote!(#(#declared),*)
    }

    fn names(&self) -> Tokens {
        let names = self.parameters.iter().map(|p| &p.ident);
        quote!(#(#names),*)
    }

    /// `&[argument("f", "a", a)?, ...]`
    fn encoded(&self, function: &str) -> Tokens {
        let encoded = self.parameters.iter().map(|Parameter { ident, .. }| {
            let name = ident.to_string();
            quote!(::libray::__private::argument(#function, #name, #ident)?)
        });
        quote!(&[#(#encoded),*])
    }

    /// What a submission gives.
    fn reference(&self) -> Tokens {
        match &self.gives {
            Gives::One { ty, .. } => quote!(::libray::ObjectRef<#ty>),
            Gives::Many { ty, .. } => quote!(::libray::ObjectStream<#ty>),
            Gives::Several { types, .. } => quote!((#(::libray::ObjectRef<#types>),*)),
        }
    }

    /// Statements that decode the arguments of `call`.
    fn decoded(&self) -> Tokens {
        if self.whole {
            return Tokens::new();
        }
        let n = self.parameters.len();
        let each = self.parameters.iter().enumerate().map(|(i, Parameter { ident, ty, .. })| {
            let name = ident.to_string();
            quote!(let #ident: #ty = __call.arg(#i, #name)?;)
        });
        quote!(__call.takes(#n)?; #(#each)*)
    }

    /// `a, &b, ...`
    fn passed(&self) -> Tokens {
        if self.whole {
            return quote!(&mut __call.whole());
        }
        let passed = self.parameters.iter().map(|Parameter { ident, borrowed, .. }| match borrowed {
            true => quote!(::core::borrow::Borrow::borrow(&#ident)),
            false => quote!(#ident),
        });
        quote!(#(#passed),*)
    }

    /// Gives what the expression gives.
    fn given(&self, expression: Tokens) -> Tokens {
        let value = if self.is_async { quote!(::libray::__private::block_on(#expression)) } else { expression };
        match &self.gives {
            Gives::One { fails, .. } if self.whole => {
                let checked = if *fails { quote!(let __value = __call.ok(__value)?;) } else { Tokens::new() };
                quote!(let __value = #value; #checked let () = __value; ::core::result::Result::Ok(()))
            }
            Gives::One { fails: false, .. } => quote!(let __value = #value; __call.give(&__value)),
            Gives::One { fails: true, .. } => {
                quote!(let __value = #value; let __value = __call.ok(__value)?; __call.give(&__value))
            }
            Gives::Many { fails: false, .. } => quote!(let __items = #value; __call.give_all(__items)),
            Gives::Many { fails: true, .. } => quote!(let __items = #value; __call.give_all_ok(__items)),
            Gives::Several { types, fails } => {
                let n = types.len() as u32;
                let value = if *fails {
                    quote!(let __value = #value; let __value = __call.ok(__value)?;)
                } else {
                    quote!(let __value = #value;)
                };
                let each = (0..types.len()).map(|i| {
                    let (field, index) = (syn::Index::from(i), i as u32);
                    quote!(__call.give_nth(#index, &__value.#field)?;)
                });
                quote! {
                    #value
                    if !__call.wants(#n) {
                        return __call.give(&__value);
                    }
                    #(#each)*
                    ::core::result::Result::Ok(())
                }
            }
        }
    }

    /// Submits through `target` with `options`.
    fn submitted(&self, target: &Tokens, options: &Tokens, args: &Tokens) -> Tokens {
        match &self.gives {
            Gives::One { .. } => quote!(#target.submit(#options, #args)),
            Gives::Many { .. } => quote!(#target.submit_stream(#options, #args)),
            Gives::Several { types, .. } => {
                let n = types.len();
                let names: Vec<_> = (0..n).map(|i| format_ident!("result{i}")).collect();
                quote! {
                    let [#(#names),*] = #target.submit_raw::<#n>(#options, #args)?;
                    ::core::result::Result::Ok((#(#names.cast()),*))
                }
            }
        }
    }
}

fn docs(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|a| a.path().is_ident("doc") || a.path().is_ident("deprecated")).collect()
}

fn cfgs(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes.iter().filter(|a| a.path().is_ident("cfg")).collect()
}

// ---- functions ----------------------------------------------------------------------------------------------------

fn remote_function(arguments: &Arguments, function: &ItemFn) -> Result<Tokens> {
    if let Some(span) = arguments.concurrent.or(arguments.groups.first().map(|(name, _)| name.span())) {
        return Err(Error::new(span, "concurrent and groups are for impl blocks: tasks are always beside each other"));
    }
    let ItemFn { vis, sig, attrs, .. } = function;
    let shape = shape_of(sig, arguments.returns.as_ref())?;
    if shape.whole {
        return Ok(whole_function(arguments, function, &shape));
    }
    let (ident, path) = (&sig.ident, path_of(arguments, &sig.ident));
    let (declared, reference) = (shape.declared(), shape.reference());
    let args = shape.encoded(&ident.to_string());
    let target = quote!(#ident::__target());
    let plain = shape.submitted(&target, &quote!(::core::option::Option::None), &args);
    let chosen = shape.submitted(&target, &quote!(::core::option::Option::Some(&self.0)), &args);
    let (decoded, passed) = (shape.decoded(), shape.passed());
    let given = shape.given(quote!(__function(#passed)));
    let with = format_ident!("__libray_with_{}", ident);
    let (docs, cfgs) = (docs(attrs), cfgs(attrs));
    let about = format!(
        "The remote side of the function `{ident}`: `remote` submits it as a task, `with` takes options first."
    );
    let about_remote = format!("Submits `{ident}` as a task and returns at once.");
    Ok(quote! {
        #function

        #(#cfgs)*
        #[doc = #about]
        #[allow(non_camel_case_types)]
        #vis struct #ident {}

        #(#cfgs)*
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #vis struct #with(::libray::TaskOptions);

        #(#cfgs)*
        #[allow(clippy::too_many_arguments, clippy::impl_trait_in_params, dead_code)]
        impl #ident {
            #[doc = #about_remote]
            #[doc = ""]
            #(#docs)*
            #vis fn remote(#declared) -> ::libray::Result<#reference> {
                #plain
            }

            /// The same with options.
            #vis fn with(options: ::libray::TaskOptions) -> #with {
                #with(options)
            }

            fn __target() -> &'static ::libray::__private::Target {
                static TARGET: ::libray::__private::Target = ::libray::__private::Target::new(#path);
                &TARGET
            }

            fn __run(__call: &mut ::libray::__private::Call<'_>) -> ::libray::__private::Outcome {
                let __function = #ident; // a parameter may have its name
                #decoded
                #given
            }
        }

        #(#cfgs)*
        #[allow(clippy::too_many_arguments, clippy::impl_trait_in_params, dead_code)]
        impl #with {
            #[doc = #about_remote]
            #vis fn remote(&self, #declared) -> ::libray::Result<#reference> {
                #chosen
            }
        }

        #(#cfgs)*
        ::libray::__private::inventory::submit! {
            ::libray::__private::Registration::function(#path, #ident::__run)
        }
    })
}

/// A function that takes the whole call: what is given to it, and wanted from it, only its callers know.
fn whole_function(arguments: &Arguments, function: &ItemFn, shape: &Shape) -> Tokens {
    let ItemFn { vis, sig, attrs, .. } = function;
    let (ident, path, cfgs) = (&sig.ident, path_of(arguments, &sig.ident), cfgs(attrs));
    let given = shape.given(quote!(#ident(&mut __call.whole())));
    let about = format!("The remote side of the function `{ident}`, which takes whatever it is given.");
    quote! {
        #function

        #(#cfgs)*
        #[doc = #about]
        #[allow(non_camel_case_types)]
        #vis struct #ident {}

        #(#cfgs)*
        #[allow(dead_code)]
        impl #ident {
            /// It, to be submitted with any arguments, options and number of results.
            #vis fn function() -> ::libray::Function {
                ::libray::Function::new(::libray::Language::Rust, "", #path)
            }

            fn __run(__call: &mut ::libray::__private::Call<'_>) -> ::libray::__private::Outcome {
                #given
            }
        }

        #(#cfgs)*
        ::libray::__private::inventory::submit! {
            ::libray::__private::Registration::function(#path, #ident::__run)
        }
    }
}

// ---- actors -------------------------------------------------------------------------------------------------------

/// A method as the handle has it, and as the worker runs it.
struct MethodCode {
    calls: Tokens,
    runs: Tokens,
    entry: Tokens,
}

/// What is said of a class beside its methods.
struct ClassCode {
    concurrent: bool,
    /// `&[("io", 2), ...]`
    groups: Tokens,
}

/// `group`: the number of the method's concurrency group, 0 = the default.
fn method_code(method: &ImplItemFn, class: &ClassCode, group: u32) -> Result<MethodCode> {
    let (concurrent, groups) = (class.concurrent, &class.groups);
    let receiver = method.sig.receiver().expect("it was chosen for it");
    let syn::ReceiverKind::Reference(_, _, mutability) = &receiver.kind else {
        return Err(Error::new(receiver.span(), "a method of an actor takes &self or &mut self"));
    };
    let exclusive = mutability.is_some();
    if concurrent && exclusive {
        return Err(Error::new(receiver.span(), "methods of a concurrent actor run at once: they take &self"));
    }
    let shape = shape_of(&method.sig, None)?;
    let (ident, vis) = (&method.sig.ident, &method.vis);
    let name = ident.to_string();
    let name = name.trim_start_matches("r#");
    let (declared, reference, args) = (shape.declared(), shape.reference(), shape.encoded(name));
    let call = match &shape.gives {
        Gives::Many { .. } => quote!(__stream),
        _ => quote!(__call),
    };
    let (decoded, passed) = (shape.decoded(), shape.passed());
    let given = shape.given(quote!(__actor.#ident(#passed)));
    let state = match (concurrent, exclusive) {
        (true, _) => quote!(let __actor: &Self = __state.shared();),
        (false, true) => quote!(let __actor: &mut Self = __state.exclusive();),
        (false, false) => quote!(let __actor: &Self = __state.exclusive();),
    };
    let (docs, cfgs) = (docs(&method.attrs), cfgs(&method.attrs));
    let about = format!("Calls `{name}` of the actor and returns at once.");
    let calls = quote! {
        #(#cfgs)*
        #[doc = #about]
        #[doc = ""]
        #(#docs)*
        #vis fn #ident(&self, #declared) -> ::libray::Result<#reference> {
            self.actor.#call(#name, (#groups, #group), self.options.as_deref(), #args)
        }
    };
    let of_any = quote! {
        #(#cfgs)*
        /// This method, to be called with any arguments, options and number of results.
        #vis fn #ident(&self) -> ::libray::Method {
            let method = self.actor.__method(#name, (#groups, #group));
            match self.options.as_deref() {
                ::core::option::Option::Some(options) => method.with(::core::clone::Clone::clone(options)),
                ::core::option::Option::None => method,
            }
        }
    };
    let run = format_ident!("__libray_run_{}", name);
    Ok(MethodCode {
        calls: if shape.whole { of_any } else { calls },
        runs: quote! {
            #(#cfgs)*
            fn #run(
                __call: &mut ::libray::__private::Call<'_>,
                __state: ::libray::__private::State<'_>,
            ) -> ::libray::__private::Outcome {
                #state
                #decoded
                #given
            }
        },
        entry: quote!(#(#cfgs)* (#name, Self::#run as ::libray::__private::Method)),
    })
}

/// The constructor's part: the code after decoding that makes an instance.
fn construction(new: &ImplItemFn, class: &Ident, shape: &Shape, concurrent: bool) -> Tokens {
    let (decoded, passed, ident) = (shape.decoded(), shape.passed(), &new.sig.ident);
    let made = quote!(<#class>::#ident(#passed));
    let made = if shape.is_async { quote!(::libray::__private::block_on(#made)) } else { made };
    let made = match &shape.gives {
        Gives::One { fails: true, .. } => quote!(let __made = #made; let __actor: Self = __call.ok(__made)?;),
        _ => quote!(let __actor: Self = #made;),
    };
    let kind = if concurrent { quote!(shared) } else { quote!(exclusive) };
    quote! {
        #decoded
        #made
        ::core::result::Result::Ok(::libray::__private::Instance::#kind(__actor))
    }
}

fn class_of(block: &ItemImpl) -> Result<Ident> {
    no_type_parameters(&block.generics)?;
    if let Some((path, _)) = &block.trait_ {
        return Err(Error::new(
            path.span(),
            "#[libray::remote] stands before an impl block of the actor's own methods",
        ));
    }
    let ident = match &*block.self_ty {
        Type::Path(path) if path.qself.is_none() => path.path.get_ident().cloned(),
        _ => None,
    };
    ident.ok_or_else(|| Error::new(block.self_ty.span(), "an actor's class is a plain type without parameters"))
}

fn remote_actor(arguments: &Arguments, mut block: ItemImpl) -> Result<Tokens> {
    if let Some(returns) = &arguments.returns {
        return Err(Error::new(returns.span(), "returns is for functions"));
    }
    if let (None, Some((name, _))) = (arguments.concurrent, arguments.groups.first()) {
        return Err(Error::new(
            name.span(),
            "methods in groups run at once: #[libray::remote(concurrent, groups(...))]",
        ));
    }
    let chosen = take_groups(&mut block, &arguments.groups)?;
    let block = &block;
    let class = class_of(block)?;
    let concurrent = arguments.concurrent.is_some();
    let named = arguments.groups.iter().map(|(name, limit)| (name.to_string(), limit));
    let named = named.map(|(name, limit)| quote!((#name, #limit)));
    let code = ClassCode { concurrent, groups: quote!(&[#(#named),*]) };
    let groups = &code.groups;
    let functions = || block.items.iter().filter_map(|i| if let ImplItem::Fn(f) = i { Some(f) } else { None });
    let new = functions().find(|f| f.sig.ident == "new" && f.sig.receiver().is_none()).ok_or_else(|| {
        Error::new(class.span(), "an actor has a constructor: `pub fn new(...) -> Self` in this impl block")
    })?;
    let public = |f: &&ImplItemFn| !matches!(f.vis, Visibility::Inherited) && f.sig.receiver().is_some();
    let group = |f: &ImplItemFn| chosen.get(&f.sig.ident.to_string()).copied().unwrap_or(0);
    let methods = functions().filter(public).map(|f| method_code(f, &code, group(f))).collect::<Result<Vec<_>>>()?;
    let shape = shape_of(&new.sig, None)?;
    let construction = construction(new, &class, &shape, concurrent);
    let remote = remote_side(arguments, &class, new, &shape, &methods, concurrent);
    let (runs, entries) = (methods.iter().map(|m| &m.runs), methods.iter().map(|m| &m.entry));
    let path = path_of(arguments, &class);
    Ok(quote! {
        #block
        #remote

        #[doc(hidden)]
        #[allow(non_snake_case, dead_code)]
        impl #class {
            fn __libray_create(
                __call: &mut ::libray::__private::Call<'_>,
            ) -> ::core::result::Result<::libray::__private::Instance, ::libray::__private::Stop> {
                #construction
            }
            const __LIBRAY_METHODS: &'static [(&'static str, ::libray::__private::Method)] = &[#(#entries),*];
            #(#runs)*
        }

        ::libray::__private::inventory::submit! {
            ::libray::__private::Registration::class(
                #path,
                #class::__libray_create,
                #class::__LIBRAY_METHODS,
                #groups,
            )
        }
    })
}

/// The handle, and what creates actors.
fn remote_side(
    arguments: &Arguments,
    class: &Ident,
    new: &ImplItemFn,
    shape: &Shape,
    methods: &[MethodCode],
    concurrent: bool,
) -> Tokens {
    let (handle, with) = (format_ident!("{}Handle", class), format_ident!("__libray_with_{}", class));
    let (vis, path, name) = (&new.vis, path_of(arguments, class), class.to_string());
    let (declared, names, args) = (shape.declared(), shape.names(), shape.encoded(&format!("{class}::new")));
    let calls = methods.iter().map(|m| &m.calls);
    let docs = docs(&new.attrs);
    let about = format!(
        "A handle of an actor of class `{class}`, here or in another process. Clones are handles of the same actor."
    );
    let about_remote = format!("Creates an actor of class `{class}` in a process of its own and returns at once.");
    let creators = if shape.whole {
        quote! {
            #[allow(dead_code)]
            impl #class {
                /// The class, of which [`create`](::libray::Function::create) makes actors with any arguments.
                #vis fn class() -> ::libray::Function {
                    ::libray::Function::new(::libray::Language::Rust, "", #path)
                }
            }
        }
    } else {
        quote! {
            #[doc(hidden)]
            #[allow(non_camel_case_types)]
            #vis struct #with(::libray::ActorOptions);

            #[allow(clippy::too_many_arguments, clippy::impl_trait_in_params, dead_code)]
            impl #with {
                #[doc = #about_remote]
                #vis fn remote(&self, #declared) -> ::libray::Result<#handle> {
                    static TARGET: ::libray::__private::Target = ::libray::__private::Target::new(#path);
                    ::libray::ActorHandle::__create(&TARGET, #name, #concurrent, &self.0, #args).map(#handle::from)
                }
            }

            #[allow(clippy::too_many_arguments, clippy::impl_trait_in_params, dead_code)]
            impl #class {
                #[doc = #about_remote]
                #[doc = ""]
                #(#docs)*
                #vis fn remote(#declared) -> ::libray::Result<#handle> {
                    #with(::libray::ActorOptions::new()).remote(#names)
                }

                /// The same with options.
                #vis fn with(options: ::libray::ActorOptions) -> #with {
                    #with(options)
                }
            }
        }
    };
    let traits = handle_traits(&handle);
    quote! {
        #[doc = #about]
        #[derive(Clone, Debug)]
        #vis struct #handle {
            actor: ::libray::ActorHandle,
            options: ::core::option::Option<::std::sync::Arc<::libray::TaskOptions>>,
        }

        #[allow(clippy::too_many_arguments, clippy::impl_trait_in_params, dead_code)]
        impl #handle {
            /// A living actor by its name, in the namespace of this runtime. Its class is not looked at: calls will
            /// tell.
            #vis fn find(name: &str) -> ::libray::Result<Self> {
                ::libray::ActorHandle::find(name).map(Self::from)
            }

            /// A handle of the same actor whose calls have these options.
            #vis fn with(&self, options: ::libray::TaskOptions) -> Self {
                Self { actor: self.actor.clone(), options: ::core::option::Option::Some(::std::sync::Arc::new(options)) }
            }

            #(#calls)*
        }
        #traits
        #creators
    }
}

fn handle_traits(handle: &Ident) -> Tokens {
    quote! {
        impl ::core::convert::From<::libray::ActorHandle> for #handle {
            fn from(actor: ::libray::ActorHandle) -> Self {
                Self { actor, options: ::core::option::Option::None }
            }
        }

        impl ::core::ops::Deref for #handle {
            type Target = ::libray::ActorHandle;
            fn deref(&self) -> &::libray::ActorHandle {
                &self.actor
            }
        }

        impl ::libray::__private::serde::Serialize for #handle {
            fn serialize<S: ::libray::__private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                ::libray::__private::serde::Serialize::serialize(&self.actor, serializer)
            }
        }

        impl<'de> ::libray::__private::serde::Deserialize<'de> for #handle {
            fn deserialize<D: ::libray::__private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                <::libray::ActorHandle as ::libray::__private::serde::Deserialize>::deserialize(deserializer).map(Self::from)
            }
        }
    }
}
