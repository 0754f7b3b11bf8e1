//! Finds the calls in a script whose arguments can be checked before it runs.

use std::ops::Range;

use full_moon::ast::{
    Ast, Call, Expression, FunctionArgs, FunctionCall, Index, Prefix, Suffix, VarExpression,
};
use full_moon::tokenizer::{TokenReference, TokenType};
use full_moon::visitors::Visitor;

/// A call of `require` or of something in `avi`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedCall {
    /// As `avi.pool.select`.
    pub(crate) name: String,
    /// The place of the name in the text.
    pub(crate) span: Range<usize>,
    /// The arguments that are literals.
    pub(crate) arguments: Vec<Option<Literal>>,
}

/// A literal argument.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    /// A string without its quotes, or a number as written.
    pub(crate) text: String,
    /// True for a string.
    pub(crate) quoted: bool,
    /// The place in the text, quotes included.
    pub(crate) span: Range<usize>,
}

/// All such calls of a text that Lua compiles, in the order of the text. `None` where the text is not understood.
pub(crate) fn named_calls(text: &str) -> Option<Vec<NamedCall>> {
    let parsed = full_moon::parse_fallible(text, full_moon::LuaVersion::luajit());
    let ast: Ast = parsed.into_result().ok()?;
    let mut finder = Finder { calls: Vec::new() };
    finder.visit_ast(&ast);
    Some(finder.calls)
}

struct Finder {
    calls: Vec<NamedCall>,
}

impl Visitor for Finder {
    fn visit_function_call(&mut self, call: &FunctionCall) {
        self.chain(call.prefix(), call.suffixes());
    }

    fn visit_var_expression(&mut self, expression: &VarExpression) {
        self.chain(expression.prefix(), expression.suffixes());
    }
}

impl Finder {
    /// `a.b.c(x)`, perhaps with more behind it.
    fn chain<'a>(&mut self, prefix: &Prefix, suffixes: impl Iterator<Item = &'a Suffix>) {
        let Prefix::Name(first) = prefix else { return };
        let mut name = first.token().to_string();
        if name != "avi" && name != "require" {
            return;
        }
        let mut span = span_of(first);
        for suffix in suffixes {
            match suffix {
                Suffix::Index(index) => {
                    let Some((part, end)) = field(index) else { return };
                    name.push('.');
                    name.push_str(&part);
                    span.end = end;
                }
                Suffix::Call(Call::AnonymousCall(arguments)) => {
                    self.calls.push(NamedCall { name, span, arguments: literals(arguments) });
                    return;
                }
                _ => return,
            }
        }
    }
}

/// The name and the end of `.name` or `["name"]`.
fn field(index: &Index) -> Option<(String, usize)> {
    match index {
        Index::Dot { name, .. } => Some((name.token().to_string(), name.token().end_position().bytes())),
        Index::Brackets { brackets, expression } => {
            let literal = literal(expression).filter(|l| l.quoted)?;
            Some((literal.text, brackets.tokens().1.token().end_position().bytes()))
        }
        _ => None,
    }
}

fn literals(arguments: &FunctionArgs) -> Vec<Option<Literal>> {
    match arguments {
        FunctionArgs::Parentheses { arguments, .. } => arguments.iter().map(literal).collect(),
        FunctionArgs::String(token) => vec![literal_token(token)],
        _ => vec![None],
    }
}

fn literal(expression: &Expression) -> Option<Literal> {
    match expression {
        Expression::String(token) | Expression::Number(token) => literal_token(token),
        Expression::Parentheses { expression, .. } => literal(expression),
        _ => None,
    }
}

/// A string with an escape in it is not taken apart: such a name is left to the run.
fn literal_token(token: &TokenReference) -> Option<Literal> {
    match token.token().token_type() {
        TokenType::StringLiteral { literal, .. } if !literal.contains('\\') => {
            Some(Literal { text: literal.to_string(), quoted: true, span: span_of(token) })
        }
        TokenType::Number { text } => {
            Some(Literal { text: text.to_string(), quoted: false, span: span_of(token) })
        }
        _ => None,
    }
}

fn span_of(token: &TokenReference) -> Range<usize> {
    token.token().start_position().bytes()..token.token().end_position().bytes()
}

#[cfg(test)]
mod tests {
    use super::named_calls;

    #[test]
    fn calls_are_found_wherever_they_are() {
        let text = r#"
            local tls = require "Default-TLS"
            if avi.l4.read(5):sub(1, 2) == "x" then pcall(function() avi.pool.select('a', "b", 80) end) end
            return { avi["pool"].get_servers((("p"))), tls.avi.l4.modify(), x.require("no"), avi.vs.ip().y }
        "#;
        let calls = named_calls(text).unwrap();
        let found: Vec<(&str, Vec<&str>)> = calls
            .iter()
            .map(|c| {
                assert!(text[c.span.clone()].starts_with(&c.name[..3]));
                let arguments = c.arguments.iter().flatten();
                (c.name.as_str(), arguments.map(|a| a.text.as_str()).collect())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("require", vec!["Default-TLS"]),
                ("avi.l4.read", vec!["5"]),
                ("avi.pool.select", vec!["a", "b", "80"]),
                ("avi.pool.get_servers", vec!["p"]),
                ("avi.vs.ip", vec![]),
            ]
        );
        let select = &calls[2];
        assert_eq!(&text[select.span.clone()], "avi.pool.select");
        assert_eq!(&text[select.arguments[1].as_ref().unwrap().span.clone()], "\"b\"");
    }
}
