//! Whether two expressions at two places of a script give the same value.

use super::Script;
use crate::api::{CLIENT_IP, CLIENT_PORT, SERVICE_NAME, VIP_IP, VIP_PORT};
use crate::tree::{Expr, LocalId, Node, Operator};
use crate::value::What;
use crate::walk::Event;

/// What an expression gives, as a text that equal ones share; made at a place in the list of facts.
#[derive(Clone)]
pub(crate) struct Form {
    /// `None`: nothing can be said.
    text: Option<String>,
    /// The variables in it that may change.
    locals: Vec<LocalId>,
    at: usize,
}

/// How deep expressions are followed.
const MOST_STEPS: usize = 10;

impl Form {
    pub(crate) fn of(script: &Script<'_>, expr: &Expr, at: usize) -> Form {
        let mut locals = Vec::new();
        let text = form(script, expr, MOST_STEPS, &mut locals);
        Form { text, locals, at }
    }

    /// The text, if there is one.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Whether both certainly have the same value.
    pub(crate) fn equals(&self, other: &Form, script: &Script<'_>) -> bool {
        if self.text.is_none() || self.text != other.text {
            return false;
        }
        if self.locals.is_empty() {
            return true;
        }
        let (first, last) = (self.at.min(other.at), self.at.max(other.at));
        let between = script.facts.get(first..last).unwrap_or_default();
        !between
            .iter()
            .any(|fact| matches!(&fact.what, Event::Write { local, .. } if self.locals.contains(local)))
    }
}

fn form(script: &Script<'_>, expr: &Expr, steps: usize, locals: &mut Vec<LocalId>) -> Option<String> {
    let steps = steps.checked_sub(1)?;
    let value = script.values.value(expr);
    if let Some(text) = &value.text {
        return Some(format!("{text:?}"));
    }
    if let Some(number) = value.number {
        return Some(number.to_string());
    }
    match &expr.node {
        Node::Parentheses(inner) => form(script, inner, steps, locals),
        Node::Local(local) => match script.values.declared(*local) {
            Some(declared) => {
                form(script, declared, steps, locals).or_else(|| Some(format!("local {local}")))
            }
            None => {
                locals.push(*local);
                Some(format!("local {local}"))
            }
        },
        Node::Binary(Operator::Concat, left, right) => {
            let (left, right) = (form(script, left, steps, locals)?, form(script, right, steps, locals)?);
            Some(format!("({left} .. {right})"))
        }
        Node::Call(call) if call.method.is_none() && call.arguments.is_empty() => {
            let What::Function(function) = script.values.value(&call.callee).what else { return None };
            let steady = [CLIENT_IP, CLIENT_PORT, VIP_IP, VIP_PORT, SERVICE_NAME];
            steady.iter().any(|f| f.name == function.name).then(|| format!("{}()", function.name))
        }
        Node::Boolean(value) => Some(value.to_string()),
        _ => None,
    }
}
