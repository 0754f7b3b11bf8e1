//! Goes through the expressions and blocks of a tree.

use crate::tree::{Block, Expr, Node, Statement};

/// Calls `f` with every expression in a statement, inner ones too, but not with what is in the blocks of the statement
/// or in functions.
pub(crate) fn expressions_of<'t>(statement: &'t Statement, f: &mut impl FnMut(&'t Expr)) {
    match statement {
        Statement::Local { values, .. } | Statement::Return(values) | Statement::For { values, .. } => {
            values.iter().for_each(|value| every(value, f));
        }
        Statement::Assign { targets, values } => {
            targets.iter().chain(values).for_each(|expr| every(expr, f));
        }
        Statement::Call(expr) => every(expr, f),
        Statement::While { condition: expr, .. } | Statement::Repeat { until: expr, .. } => every(expr, f),
        Statement::If { arms, .. } => arms.iter().for_each(|(condition, _)| every(condition, f)),
        Statement::Function { target, .. } => every(target, f),
        Statement::Do(_) | Statement::LocalFunction { .. } | Statement::Break | Statement::Jump => {}
    }
}

/// Calls `f` with an expression and all that are in it, but not with what is in functions.
pub(crate) fn every<'t>(expr: &'t Expr, f: &mut impl FnMut(&'t Expr)) {
    f(expr);
    match &expr.node {
        Node::Index(a, b) | Node::Binary(_, a, b) => {
            every(a, f);
            every(b, f);
        }
        Node::Unary(_, inner) | Node::Parentheses(inner) => every(inner, f),
        Node::Call(call) => {
            every(&call.callee, f);
            call.arguments.iter().for_each(|argument| every(argument, f));
        }
        Node::Table(fields) => {
            for (key, value) in fields {
                key.iter().for_each(|key| every(key, f));
                every(value, f);
            }
        }
        _ => {}
    }
}

/// Calls `f` with the blocks of a statement, those of functions not counted.
pub(crate) fn blocks_of<'t>(statement: &'t Statement, f: &mut impl FnMut(&'t Block)) {
    match statement {
        Statement::Do(block)
        | Statement::While { block, .. }
        | Statement::Repeat { block, .. }
        | Statement::For { block, .. } => f(block),
        Statement::If { arms, otherwise } => {
            arms.iter().for_each(|(_, block)| f(block));
            otherwise.iter().for_each(f);
        }
        _ => {}
    }
}
