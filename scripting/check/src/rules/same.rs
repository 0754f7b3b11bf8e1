//! Whether two expressions at two places of a script give the same value.

use super::Script;
use crate::api::{CLIENT_IP, CLIENT_PORT, SERVICE_NAME, VIP_IP, VIP_PORT};
use crate::tree::{Expr, LocalId, Node, Operator};
use crate::value::What;
use crate::walk::Event;

/// Compares expressions of a script.
pub(crate) struct Same<'s, 't> {
    script: &'s Script<'t>,
}

/// How deep expressions are followed.
const MOST_STEPS: usize = 16;

impl<'s, 't> Same<'s, 't> {
    pub(crate) fn of(script: &'s Script<'t>) -> Self {
        Same { script }
    }

    /// Whether the expressions, at these places in the list of facts, certainly have the same value.
    pub(crate) fn between(&self, one: &Expr, one_at: usize, two: &Expr, two_at: usize) -> bool {
        let (mut seen, mut locals) = (None, Vec::new());
        for expr in [one, two] {
            let Some(form) = self.form(expr, MOST_STEPS, &mut locals) else { return false };
            match &seen {
                None => seen = Some(form),
                Some(first) if *first != form => return false,
                Some(_) => {}
            }
        }
        let (first, last) = (one_at.min(two_at), one_at.max(two_at));
        let between = self.script.facts.get(first..last).unwrap_or_default();
        !between.iter().any(|fact| matches!(&fact.what, Event::Write { local, .. } if locals.contains(local)))
    }

    /// A text that equal expressions share; `None` where nothing can be said. `locals` gets the variables in it.
    fn form(&self, expr: &Expr, steps: usize, locals: &mut Vec<LocalId>) -> Option<String> {
        let steps = steps.checked_sub(1)?;
        let value = self.script.values.value(expr);
        if let Some(text) = &value.text {
            return Some(format!("{text:?}"));
        }
        if let Some(number) = value.number {
            return Some(format!("{number}"));
        }
        match &expr.node {
            Node::Parentheses(inner) => self.form(inner, steps, locals),
            Node::Local(local) => match self.script.values.declared(*local) {
                Some(declared) => {
                    self.form(declared, steps, locals).or_else(|| Some(format!("local {local}")))
                }
                None => {
                    locals.push(*local);
                    Some(format!("local {local}"))
                }
            },
            Node::Binary(Operator::Concat, left, right) => {
                let (left, right) = (self.form(left, steps, locals)?, self.form(right, steps, locals)?);
                Some(format!("({left} .. {right})"))
            }
            Node::Index(inner, key) => {
                let (inner, key) = (self.form(inner, steps, locals)?, self.form(key, steps, locals)?);
                Some(format!("{inner}[{key}]"))
            }
            Node::Call(call) if call.method.is_none() && call.arguments.is_empty() => {
                match self.script.values.value(&call.callee).what {
                    What::Function(function) => {
                        let steady = [CLIENT_IP, CLIENT_PORT, VIP_IP, VIP_PORT, SERVICE_NAME];
                        steady.iter().any(|f| f.name == function.name).then(|| format!("{}()", function.name))
                    }
                    _ => None,
                }
            }
            Node::Boolean(value) => Some(value.to_string()),
            _ => None,
        }
    }
}
