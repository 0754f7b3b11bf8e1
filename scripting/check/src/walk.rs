//! What a script does, as a list of facts in the order of the text.

use crate::api::Module;
use crate::tree::{
    Block, Body, Call, Expr, FunctionId, LocalId, Node, Operator, Span, Statement, Unary, leaves,
};
use crate::value::{Value, Values, What};

/// Where something happens: in which function, and in which branches of it, outer ones first.
#[derive(Clone)]
pub(crate) struct Site<'t> {
    pub(crate) function: FunctionId,
    pub(crate) path: Vec<Branch<'t>>,
}

/// An arm of an `if`, a loop, or the right side of `and` or `or`.
#[derive(Clone, Copy)]
pub(crate) struct Branch<'t> {
    /// Which statement.
    statement: usize,
    /// Which arm of it.
    arm: usize,
    /// What holds in it: the condition, and whether it is true.
    pub(crate) condition: Option<(&'t Expr, bool)>,
    /// Its end leaves the function or loop.
    leaves: bool,
}

impl Site<'_> {
    /// Whether `other`, which comes later in the text, can come after this without a loop.
    pub(crate) fn reaches(&self, other: &Site<'_>) -> bool {
        if self.function != other.function {
            return false;
        }
        let common = self.common(other);
        let (Some(own), theirs) = (self.path.get(common..), other.path.get(common)) else { return true };
        let apart = matches!((own.first(), theirs), (Some(a), Some(b)) if a.statement == b.statement);
        !apart && !own.iter().any(|branch| branch.leaves)
    }

    /// Whether this has happened whenever `other` happens.
    pub(crate) fn always_before(&self, other: &Site<'_>) -> bool {
        self.function == other.function && self.common(other) == self.path.len()
    }

    fn common(&self, other: &Site<'_>) -> usize {
        let pairs = self.path.iter().zip(&other.path);
        pairs.take_while(|(a, b)| a.statement == b.statement && a.arm == b.arm).count()
    }
}

/// How a value is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Usage {
    /// Somehow.
    Value,
    /// Only for being there or not.
    Condition,
    /// As an argument of a module's function.
    Argument(&'static Module),
    /// It is called.
    Called,
    /// A field of it is asked for.
    Indexed,
}

/// A call.
pub(crate) struct CallFact<'t> {
    /// What is called.
    pub(crate) callee: Value,
    /// The place of its name.
    pub(crate) name: Span,
    /// With a colon.
    pub(crate) method: bool,
    pub(crate) arguments: &'t [Expr],
    /// The local variables that get its results, and which one.
    pub(crate) results: Vec<(LocalId, usize)>,
}

/// What happens.
pub(crate) enum Event<'t> {
    Call(CallFact<'t>),
    /// A local variable is read.
    Read {
        local: LocalId,
        usage: Usage,
    },
    /// A local variable gets a value; `None` where it is not a plain one.
    Write {
        local: LocalId,
        value: Option<&'t Expr>,
    },
    /// A global is read.
    Global {
        name: &'t str,
        usage: Usage,
    },
    /// A global is set, by `function` or by an assignment, in the main chunk's own block or elsewhere.
    SetGlobal {
        name: &'t str,
        function: bool,
        nested: bool,
    },
    /// A name of the API or of a library is read.
    Name {
        value: Value,
        usage: Usage,
    },
    /// A field of such a name is set.
    SetName {
        path: String,
        variable: bool,
        value: Option<&'t Expr>,
    },
    /// Two values are compared.
    Compare {
        operator: Operator,
        left: &'t Expr,
        right: &'t Expr,
    },
    /// An expression decides by being there or not.
    Tested(&'t Expr),
    /// Something is done to a value, perhaps one with a name, that only a metatable could do to a function; with it another
    /// value, if there is one, that may have such a table.
    Operand {
        value: &'t Expr,
        other: Option<&'t Expr>,
        done: &'static str,
    },
}

/// One fact.
pub(crate) struct Fact<'t> {
    pub(crate) site: Site<'t>,
    pub(crate) span: Span,
    pub(crate) what: Event<'t>,
}

/// All facts of a script.
pub(crate) fn facts<'t>(block: &'t Block, values: &Values<'t>) -> Vec<Fact<'t>> {
    let mut walker =
        Walker { values, facts: Vec::new(), site: Site { function: 0, path: Vec::new() }, statements: 0 };
    walker.block(block);
    walker.facts
}

/// What arithmetic does to its operands.
const CALCULATED: &str = "calculated with";

struct Walker<'v, 't> {
    values: &'v Values<'t>,
    facts: Vec<Fact<'t>>,
    site: Site<'t>,
    statements: usize,
}

impl<'t> Walker<'_, 't> {
    fn add(&mut self, span: &Span, what: Event<'t>) {
        self.facts.push(Fact { site: self.site.clone(), span: span.clone(), what });
    }

    fn block(&mut self, block: &'t Block) {
        for statement in block {
            self.statements += 1;
            self.statement(statement);
        }
    }

    fn branch(
        &mut self,
        statement: usize,
        arm: usize,
        condition: Option<(&'t Expr, bool)>,
        block: &'t Block,
    ) {
        self.site.path.push(Branch { statement, arm, condition, leaves: leaves(block) });
        self.block(block);
        self.site.path.pop();
    }

    fn body(&mut self, body: &'t Body) {
        let inner = Site { function: body.id, path: Vec::new() };
        let outer = std::mem::replace(&mut self.site, inner);
        self.block(&body.block);
        self.site = outer;
    }

    fn statement(&mut self, statement: &'t Statement) {
        let number = self.statements;
        match statement {
            Statement::Local { locals, values } => {
                self.assign(locals.iter().map(|l| Some(*l)).collect(), values);
            }
            Statement::Assign { targets, values } => {
                let local = |target: &Expr| match target.node {
                    Node::Local(local) => Some(local),
                    _ => None,
                };
                self.assign(targets.iter().map(local).collect(), values);
                for (index, target) in targets.iter().enumerate() {
                    let value = values.get(index);
                    self.target(target, false, value);
                }
            }
            Statement::Call(call) => self.expr(call, Usage::Value),
            Statement::Do(block) => self.block(block),
            Statement::While { condition, block } => {
                self.condition(condition);
                self.branch(number, 0, Some((condition, true)), block);
            }
            Statement::Repeat { block, until } => {
                self.block(block);
                self.condition(until);
            }
            Statement::If { arms, otherwise } => self.arms(number, arms, otherwise.as_ref()),
            Statement::For { locals, values, block } => {
                values.iter().for_each(|value| self.expr(value, Usage::Value));
                for local in locals {
                    self.add(&(0..0), Event::Write { local: *local, value: None });
                }
                self.branch(number, 0, None, block);
            }
            Statement::Function { target, body } => {
                self.target(target, true, None);
                self.body(body);
            }
            Statement::LocalFunction { body, .. } => self.body(body),
            Statement::Return(values) => values.iter().for_each(|value| self.expr(value, Usage::Value)),
            Statement::Break | Statement::Jump => {}
        }
    }

    fn arms(&mut self, number: usize, arms: &'t [(Expr, Block)], otherwise: Option<&'t Block>) {
        for (arm, (condition, block)) in arms.iter().enumerate() {
            self.condition(condition);
            self.branch(number, arm, Some((condition, true)), block);
        }
        if let Some(block) = otherwise {
            let only = arms.first().filter(|_| arms.len() == 1);
            self.branch(number, arms.len(), only.map(|(condition, _)| (condition, false)), block);
        }
    }

    /// `a, b = x, f()`: the values, then what becomes of them.
    fn assign(&mut self, targets: Vec<Option<LocalId>>, values: &'t [Expr]) {
        for (index, value) in values.iter().enumerate() {
            let last = index + 1 == values.len();
            let all = targets.iter().enumerate().skip(index).take(if last { usize::MAX } else { 1 });
            let results = all.filter_map(|(at, local)| Some(((*local)?, at - index))).collect();
            match &value.node {
                Node::Call(call) => self.call(call, &value.span, results),
                _ => self.expr(value, Usage::Value),
            }
        }
        for (index, local) in targets.iter().enumerate() {
            if let Some(local) = local {
                self.add(&(0..0), Event::Write { local: *local, value: values.get(index) });
            }
        }
    }

    /// What is assigned to, other than local variables.
    fn target(&mut self, target: &'t Expr, function: bool, value: Option<&'t Expr>) {
        match &target.node {
            Node::Global(name) => {
                let nested = self.site.function != 0 || !self.site.path.is_empty();
                self.add(&target.span, Event::SetGlobal { name, function, nested });
            }
            Node::Index(inner, key) => {
                let outer = self.values.value(inner);
                let name = self.values.value(key).text.unwrap_or_else(|| "?".to_owned());
                match outer.what {
                    What::Space(space) => {
                        let path = format!("{space}.{name}");
                        self.add(&target.span, Event::SetName { path, variable: false, value });
                    }
                    What::Variables => {
                        let path = format!("{}.{name}", crate::api::VARIABLES);
                        self.add(&target.span, Event::SetName { path, variable: true, value });
                    }
                    What::Base(_) => {}
                    _ => self.indexed(inner),
                }
                self.expr(key, Usage::Value);
            }
            _ => {}
        }
    }

    fn condition(&mut self, expr: &'t Expr) {
        self.expr(expr, Usage::Condition);
    }

    fn expr(&mut self, expr: &'t Expr, usage: Usage) {
        if matches!(usage, Usage::Condition) {
            self.add(&expr.span, Event::Tested(expr));
        }
        match &expr.node {
            Node::Local(local) => self.add(&expr.span, Event::Read { local: *local, usage }),
            Node::Global(name) => self.global(expr, name, usage),
            Node::Index(inner, key) => self.index(expr, inner, key, usage),
            Node::Call(call) => self.call(call, &expr.span, Vec::new()),
            Node::Function(body) => self.body(body),
            Node::Table(fields) => {
                for (key, value) in fields {
                    key.iter().for_each(|key| self.expr(key, Usage::Value));
                    self.expr(value, Usage::Value);
                }
            }
            Node::Binary(operator, left, right) => self.binary(expr, *operator, left, right, usage),
            Node::Unary(Unary::Not, inner) => self.condition(inner),
            Node::Unary(Unary::Minus, inner) => self.operand(inner, None, CALCULATED),
            Node::Unary(Unary::Length, inner) => self.operand(inner, None, "measured"),
            Node::Parentheses(inner) => self.expr(inner, usage),
            Node::Nil | Node::Boolean(_) | Node::Number(_) | Node::Text(_) | Node::Vararg => {}
        }
    }

    fn global(&mut self, expr: &'t Expr, name: &'t str, usage: Usage) {
        let value = self.values.value(expr);
        let what = match value.what {
            What::Plain => Event::Global { name, usage },
            _ => Event::Name { value, usage },
        };
        self.add(&expr.span, what);
    }

    fn index(&mut self, expr: &'t Expr, inner: &'t Expr, key: &'t Expr, usage: Usage) {
        let value = self.values.value(expr);
        if matches!(value.what, What::Plain) {
            self.indexed(inner);
            self.expr(key, Usage::Value);
        } else {
            self.add(&expr.span, Event::Name { value, usage });
        }
    }

    fn binary(&mut self, expr: &'t Expr, operator: Operator, left: &'t Expr, right: &'t Expr, usage: Usage) {
        let is_nil = |side: &Expr| matches!(side.bare().node, Node::Nil);
        match operator {
            Operator::And | Operator::Or => {
                self.condition(left);
                self.statements += 1;
                let condition = Some((left, operator == Operator::And));
                self.site.path.push(Branch { statement: self.statements, arm: 0, condition, leaves: false });
                self.expr(right, usage);
                self.site.path.pop();
            }
            Operator::Equal | Operator::NotEqual if is_nil(left) || is_nil(right) => {
                for side in [left, right] {
                    self.expr_quietly(side);
                }
            }
            Operator::Equal | Operator::NotEqual | Operator::Order => {
                self.expr(left, Usage::Value);
                self.expr(right, Usage::Value);
                self.add(&expr.span, Event::Compare { operator, left, right });
            }
            Operator::Concat | Operator::Arithmetic => {
                let done = if operator == Operator::Concat { "concatenated" } else { CALCULATED };
                self.operand(left, Some(right), done);
                self.operand(right, Some(left), done);
            }
        }
    }

    /// A value with which something is done, beside another one or alone.
    fn operand(&mut self, value: &'t Expr, other: Option<&'t Expr>, done: &'static str) {
        self.done(value, other, done);
        self.expr(value, Usage::Value);
    }

    /// A value of which a field is asked for or set.
    fn indexed(&mut self, value: &'t Expr) {
        self.done(value, None, "indexed");
        self.expr(value, Usage::Indexed);
    }

    fn done(&mut self, value: &'t Expr, other: Option<&'t Expr>, done: &'static str) {
        if matches!(value.bare().node, Node::Local(_) | Node::Index(..)) {
            self.add(&value.span, Event::Operand { value, other, done });
        }
    }

    /// An operand of a comparison with nil.
    fn expr_quietly(&mut self, side: &'t Expr) {
        match &side.node {
            Node::Local(local) => {
                let usage = Usage::Condition;
                self.add(&side.span, Event::Read { local: *local, usage });
            }
            Node::Global(name) => self.global(side, name, Usage::Condition),
            Node::Index(inner, key) => self.index(side, inner, key, Usage::Condition),
            _ => self.expr(side, Usage::Value),
        }
    }

    fn call(&mut self, call: &'t Call, span: &Span, results: Vec<(LocalId, usize)>) {
        let callee = match &call.method {
            Some((name, _)) => self.values.method(&call.callee, name),
            None => self.values.value(&call.callee),
        };
        let named = !matches!(callee.what, What::Plain | What::Own(_));
        if !named {
            match call.method {
                Some(_) => self.indexed(&call.callee),
                None => self.expr(&call.callee, Usage::Called),
            }
        }
        let inner = match callee.what {
            What::ModuleMember(module, ..) => Usage::Argument(module),
            _ => Usage::Value,
        };
        call.arguments.iter().for_each(|argument| self.expr(argument, inner));
        let end = call.method.as_ref().map_or(call.callee.span.end, |(_, span)| span.end);
        let name = call.callee.span.start..end;
        let method = call.method.is_some();
        let fact = CallFact { callee, name, method, arguments: &call.arguments, results };
        self.add(span, Event::Call(fact));
    }
}
