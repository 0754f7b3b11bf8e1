//! What an expression is, as far as the text tells: literals, names of the API, results of its calls, and locals that
//! are such and never change.

use std::collections::HashSet;

use crate::api::{self, Absent, Function, Kind, Kinds, Module};
use crate::tree::{Block, Expr, FunctionId, LocalId, Node, Operator, Statement, Tree, Unary};

/// What is known about a value.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// The kinds that it may have.
    pub(crate) kinds: Kinds,
    /// The string, if it is this one.
    pub(crate) text: Option<String>,
    /// The number, if it is this one.
    pub(crate) number: Option<f64>,
    /// What it is besides.
    pub(crate) what: What,
    /// Whether it stands there, and is not the value of a local variable.
    pub(crate) direct: bool,
}

/// Something that has a name.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Nothing of that sort.
    Plain,
    /// `avi` or a namespace of it.
    Space(String),
    /// `avi.vs.reqvar`
    Variables,
    /// A function of `avi`.
    Function(&'static Function),
    /// A function of `avi` that weir does not have.
    Unsupported(String),
    /// A name in `avi` that does not exist.
    Undefined(String),
    /// A parser module.
    Module(&'static Module),
    /// A function of a parser module; `None`: there is no such one.
    ModuleMember(&'static Module, String, Option<&'static Function>),
    /// A base function or a library.
    Base(String),
    /// A member of a library; `false`: there is no such one.
    Member(String, String, bool),
    /// Something of Lua that a script does not have.
    Absent(&'static Absent),
    /// A function of the script itself.
    Own(FunctionId),
}

impl Value {
    fn of(kinds: Kinds) -> Value {
        Value { kinds, text: None, number: None, what: What::Plain, direct: true }
    }

    fn unknown() -> Value {
        Value::of(Kinds::ANY)
    }

    fn kind(kind: Kind) -> Value {
        Value::of(Kinds::of(&[kind]))
    }

    fn named(kind: Kind, what: What) -> Value {
        Value { what, ..Value::kind(kind) }
    }

    /// The kind, if there is only one that it may have.
    pub(crate) fn only(&self) -> Option<Kind> {
        if let Some(kind) = self.kinds.only() {
            return Some(kind);
        }
        [Kind::Significant, Kind::Userdata].into_iter().find(|kind| self.kinds == Kinds::of(&[*kind]))
    }
}

/// The values of a script.
pub(crate) struct Values<'t> {
    tree: &'t Tree,
    /// What each local variable is declared with: an expression and which of its results; or a function.
    inits: Vec<Init<'t>>,
    /// Names of globals that the script sets.
    pub(crate) written: HashSet<String>,
    /// Library members and other fields of globals that the script sets, such as `string.tohex`.
    pub(crate) extended: HashSet<String>,
    /// Whether the script reaches its globals by computed names.
    pub(crate) dynamic: bool,
}

#[derive(Clone, Copy)]
enum Init<'t> {
    Unknown,
    Nil,
    Result(&'t Expr, usize),
    Function(FunctionId),
}

/// How many variables one value may come through.
const MOST_STEPS: usize = 12;

impl<'t> Values<'t> {
    pub(crate) fn of(tree: &'t Tree) -> Values<'t> {
        let mut values = Values {
            tree,
            inits: vec![Init::Unknown; tree.locals.len()],
            written: HashSet::new(),
            extended: HashSet::new(),
            dynamic: false,
        };
        values.declarations(&tree.block);
        values
    }

    /// What the declaration of a local variable says, if the variable is never assigned again.
    fn init(&self, local: LocalId) -> Init<'t> {
        let settled = self.tree.locals.get(local).is_some_and(|local| local.writes == 0);
        self.inits.get(local).copied().filter(|_| settled).unwrap_or(Init::Unknown)
    }

    /// The expression that a local variable stands for: its first result, where the variable never changes.
    pub(crate) fn declared(&self, local: LocalId) -> Option<&'t Expr> {
        match self.init(local) {
            Init::Result(expr, 0) => Some(expr),
            _ => None,
        }
    }

    fn set(&mut self, local: LocalId, init: Init<'t>) {
        if let Some(place) = self.inits.get_mut(local) {
            *place = init;
        }
    }

    fn declarations(&mut self, block: &'t Block) {
        for statement in block {
            crate::visit::expressions_of(statement, &mut |expr| self.expression(expr));
            match statement {
                Statement::Local { locals, values } => self.locals(locals, values),
                Statement::Assign { targets, .. } => targets.iter().for_each(|target| self.global(target)),
                Statement::Function { target, body } => {
                    self.global(target);
                    self.declarations(&body.block);
                }
                Statement::LocalFunction { local, body } => {
                    self.set(*local, Init::Function(body.id));
                    self.declarations(&body.block);
                }
                _ => {}
            }
            crate::visit::blocks_of(statement, &mut |block| self.declarations(block));
        }
    }

    fn locals(&mut self, locals: &[LocalId], values: &'t [Expr]) {
        for (index, local) in locals.iter().enumerate() {
            let init = match (values.get(index), values.last()) {
                (Some(value), _) => Init::Result(value, 0),
                (None, Some(last)) if last.is_many() => Init::Result(last, index + 1 - values.len()),
                (None, _) => Init::Nil,
            };
            self.set(*local, init);
        }
    }

    /// Functions inside of expressions, and uses of `_G`.
    fn expression(&mut self, expr: &'t Expr) {
        match &expr.node {
            Node::Function(body) => self.declarations(&body.block),
            Node::Global(name) if name == "_G" => self.dynamic = true,
            _ => {}
        }
    }

    fn global(&mut self, target: &Expr) {
        match &target.node {
            Node::Global(name) => {
                self.written.insert(name.clone());
            }
            Node::Index(inner, key) => {
                let library = match (self.value(inner).what, &inner.node) {
                    (What::Base(name), _) => name,
                    (_, Node::Global(name)) => name.clone(),
                    _ => return,
                };
                let member = self.value(key).text.unwrap_or_else(|| "*".to_owned());
                self.extended.insert(format!("{library}.{member}"));
            }
            _ => {}
        }
    }

    /// The object of a call with a colon.
    pub(crate) fn value_of_space(&self) -> Value {
        Value::kind(Kind::Userdata)
    }

    /// What is known about an expression.
    pub(crate) fn value(&self, expr: &Expr) -> Value {
        self.result(expr, 0, MOST_STEPS)
    }

    /// What is known about the result number `index` of an expression.
    fn result(&self, expr: &Expr, index: usize, steps: usize) -> Value {
        let Some(steps) = steps.checked_sub(1) else { return Value::unknown() };
        match &expr.node {
            Node::Call(call) => self.call_result(call, index, steps),
            Node::Vararg => Value::unknown(),
            _ if index > 0 => Value::kind(Kind::Nil),
            Node::Nil => Value::kind(Kind::Nil),
            Node::Boolean(_) => Value::kind(Kind::Boolean),
            Node::Number(number) => Value { number: *number, ..Value::kind(Kind::Number) },
            Node::Text(text) => Value { text: text.clone(), ..Value::kind(Kind::String) },
            Node::Function(body) => Value::named(Kind::Function, What::Own(body.id)),
            Node::Table(_) => Value::kind(Kind::Table),
            Node::Local(local) => self.local(*local, steps),
            Node::Global(name) => self.global_value(name),
            Node::Index(inner, key) => self.member(inner, key, steps),
            Node::Binary(operator, left, right) => self.binary(*operator, left, right, steps),
            Node::Unary(operator, inner) => self.unary(*operator, inner, steps),
            Node::Parentheses(inner) => self.result(inner, 0, steps),
        }
    }

    fn local(&self, local: LocalId, steps: usize) -> Value {
        let value = match self.init(local) {
            Init::Unknown => return Value::unknown(),
            Init::Nil => Value::kind(Kind::Nil),
            Init::Result(expr, index) => self.result(expr, index, steps),
            Init::Function(id) => Value::named(Kind::Function, What::Own(id)),
        };
        Value { direct: false, ..value }
    }

    fn global_value(&self, name: &str) -> Value {
        if self.written.contains(name) {
            return Value::unknown();
        }
        if name == "avi" {
            return Value::named(Kind::Userdata, What::Space(name.to_owned()));
        }
        if let Some(absent) = api::absent(name).filter(|_| !self.dynamic) {
            return Value::named(Kind::Nil, What::Absent(absent));
        }
        if api::LIBRARIES.iter().any(|library| library.name == name) {
            return Value::named(Kind::Table, What::Base(name.to_owned()));
        }
        if api::BASE.contains(&name) && !name.starts_with('_') {
            return Value::named(Kind::Function, What::Base(name.to_owned()));
        }
        Value::unknown()
    }

    fn member(&self, inner: &Expr, key: &Expr, steps: usize) -> Value {
        let outer = self.result(inner, 0, steps);
        match self.result(key, 0, steps).text {
            Some(key) => self.member_of(outer, key),
            None => Value::unknown(),
        }
    }

    /// What `inner:name()` calls, where that is a function of the API or of a module. Methods of strings are not
    /// told apart from others.
    pub(crate) fn method(&self, inner: &Expr, name: &str) -> Value {
        let outer = self.value(inner);
        match outer.what {
            What::Space(_) | What::Module(_) => self.member_of(outer, name.to_owned()),
            _ => Value::unknown(),
        }
    }

    fn member_of(&self, outer: Value, key: String) -> Value {
        let value = match outer.what {
            What::Space(space) => avi_member(format!("{space}.{key}")),
            What::Undefined(space) => Value::named(Kind::Nil, What::Undefined(format!("{space}.{key}"))),
            What::Module(module) => {
                let function = module.functions.iter().find(|function| function.name == key);
                let kind = if function.is_some() { Kind::Function } else { Kind::Nil };
                Value::named(kind, What::ModuleMember(module, key, function))
            }
            What::Base(library) => self.library_member(library, key),
            _ => return Value::unknown(),
        };
        Value { direct: outer.direct, ..value }
    }

    fn library_member(&self, library: String, key: String) -> Value {
        let added = |name: &str| self.extended.contains(&format!("{library}.{name}"));
        let Some(there) = api::in_library(&library, &key).filter(|_| !added(&key) && !added("*")) else {
            return Value::unknown();
        };
        let kind = match key.as_str() {
            "pi" | "huge" => Kind::Number,
            _ if there => Kind::Function,
            _ => Kind::Nil,
        };
        Value::named(kind, What::Member(library, key, there))
    }

    fn call_result(&self, call: &crate::tree::Call, index: usize, steps: usize) -> Value {
        if call.method.is_some() {
            return Value::unknown();
        }
        let function = match self.result(&call.callee, 0, steps).what {
            What::Function(function) | What::ModuleMember(_, _, Some(function)) => function,
            What::Base(name) if name == "require" && index == 0 => {
                let name = call.arguments.first().and_then(|name| self.result(name, 0, steps).text);
                let module = name.and_then(|name| api::module(&name));
                return module.map_or(Value::unknown(), |m| Value::named(Kind::Table, What::Module(m)));
            }
            What::Base(name) if name == "tostring" && index == 0 => return Value::kind(Kind::String),
            What::Base(name) if name == "tonumber" && index == 0 => {
                return Value::of(Kinds::of(&[Kind::Number, Kind::Nil]));
            }
            _ => return Value::unknown(),
        };
        match function.results.get(index) {
            Some(result) => Value::of(result.kinds),
            None => Value::kind(Kind::Nil),
        }
    }

    fn binary(&self, operator: Operator, left: &Expr, right: &Expr, steps: usize) -> Value {
        match operator {
            Operator::Equal | Operator::NotEqual | Operator::Order => Value::kind(Kind::Boolean),
            // Of anything else a metatable could make anything; nil would be an error.
            Operator::Concat | Operator::Arithmetic => {
                const PLAIN: Kinds = Kinds::of(&[Kind::String, Kind::Number, Kind::Nil]);
                let plain = |expr: &Expr| self.result(expr, 0, steps).kinds.within(PLAIN);
                match (plain(left) && plain(right), operator) {
                    (true, Operator::Concat) => Value::kind(Kind::String),
                    (true, _) => Value::kind(Kind::Number),
                    (false, _) => Value::unknown(),
                }
            }
            // Either one.
            Operator::And | Operator::Or => {
                let [left, right] = [left, right].map(|side| self.result(side, 0, steps).kinds);
                let both = left.or(right);
                Value::of(if operator == Operator::And {
                    both.and(Kind::Nil).and(Kind::Boolean)
                } else {
                    both
                })
            }
        }
    }

    fn unary(&self, operator: Unary, inner: &Expr, steps: usize) -> Value {
        match operator {
            Unary::Not => Value::kind(Kind::Boolean),
            Unary::Length => Value::kind(Kind::Number),
            Unary::Minus => {
                let inner = self.result(inner, 0, steps);
                match inner.number {
                    Some(number) => Value { number: Some(-number), ..Value::kind(Kind::Number) },
                    None => Value::unknown(),
                }
            }
        }
    }
}

/// What `avi.a.b` is.
fn avi_member(path: String) -> Value {
    if let Some(function) = api::function(&path) {
        return Value::named(Kind::Function, What::Function(function));
    }
    if path == api::SIGNIFICANT {
        return Value::kind(Kind::Significant);
    }
    if path == api::VARIABLES {
        return Value::named(Kind::Userdata, What::Variables);
    }
    if api::SPACES.contains(&path.as_str()) || api::UNSUPPORTED_SPACES.contains(&path.as_str()) {
        return Value::named(Kind::Userdata, What::Space(path));
    }
    if api::unsupported(&path) {
        return Value::named(Kind::Function, What::Unsupported(path));
    }
    Value::named(Kind::Nil, What::Undefined(path))
}
