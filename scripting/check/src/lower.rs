//! From the parser's tree to [`Tree`].

use full_moon::ast::{
    self, BinOp, Call as ParsedCall, Expression, Field, FunctionArgs, FunctionBody, FunctionCall, Index,
    LastStmt, Parameter, Prefix, Stmt, Suffix, UnOp, Var,
};
use full_moon::node::Node as Parsed;
use full_moon::tokenizer::{StringLiteralQuoteType, Symbol, TokenReference, TokenType};

use crate::tree::{
    Block, Body, Call, Expr, FunctionId, Local, LocalId, Node, Operator, Span, Statement, Tree, Unary,
};

/// What the parser does not understand, and where.
pub(crate) struct SyntaxError {
    pub(crate) span: Span,
    pub(crate) message: String,
}

/// Stack of the parser: `1 + 1 + 1 + …` is as deep as it is long. A page of it is memory only once it is used.
fn stack(text: &str) -> usize {
    const LEAST: usize = 16 << 20;
    const MOST: usize = 1 << 30;
    text.len().saturating_mul(2048).clamp(LEAST, MOST)
}

/// Deepest expression that is looked into.
const DEEPEST: usize = 200;

/// Reads a text. Of an expression that is deeper than 200 the inner part is taken for any value.
pub(crate) fn tree(text: &str) -> Result<Tree, SyntaxError> {
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(stack(text)).spawn_scoped(scope, || parse(text));
        let failed = || SyntaxError { span: 0..0, message: "there is no memory to parse this".to_owned() };
        parser.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

fn parse(text: &str) -> Result<Tree, SyntaxError> {
    let parsed = full_moon::parse_fallible(text, full_moon::LuaVersion::luajit());
    let ast = parsed.into_result().map_err(|errors| match errors.first() {
        Some(error) => {
            let (start, end) = error.range();
            let message = error.error_message();
            // Some end with their place, which is told elsewhere.
            let message = message.split_once(" (").map_or(message.as_ref(), |(before, _)| before).to_owned();
            SyntaxError { span: start.bytes()..end.bytes(), message }
        }
        None => SyntaxError { span: 0..0, message: "not understood".to_owned() },
    })?;
    let mut lower = Lower { locals: Vec::new(), scopes: vec![Vec::new()], made: 0, depth: 0 };
    let block = lower.statements(ast.nodes());
    Ok(Tree { block, locals: lower.locals })
}

struct Lower {
    locals: Vec<Local>,
    /// Names that are visible, inner scopes last.
    scopes: Vec<Vec<(String, LocalId)>>,
    /// Expressions around the current one.
    depth: usize,
    /// Number of the last function.
    made: FunctionId,
}

fn span_of(node: &impl Parsed) -> Span {
    let at = |position: Option<full_moon::tokenizer::Position>| position.map_or(0, |p| p.bytes());
    at(node.start_position())..at(node.end_position())
}

fn token_span(token: &TokenReference) -> Span {
    token.token().start_position().bytes()..token.token().end_position().bytes()
}

fn token_text(token: &TokenReference) -> String {
    token.token().to_string()
}

impl Lower {
    fn declare(&mut self, name: &str) -> LocalId {
        self.locals.push(Local { name: name.to_owned(), writes: 0 });
        let id = self.locals.len() - 1;
        if let Some(scope) = self.scopes.last_mut() {
            scope.push((name.to_owned(), id));
        }
        id
    }

    fn find(&self, name: &str) -> Option<LocalId> {
        let mut visible = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev());
        visible.find(|(known, _)| known == name).map(|(_, id)| *id)
    }

    fn scope<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        self.scopes.push(Vec::new());
        let result = inner(self);
        self.scopes.pop();
        result
    }

    fn block(&mut self, block: &ast::Block) -> Block {
        self.scope(|lower| lower.statements(block))
    }

    fn statements(&mut self, block: &ast::Block) -> Block {
        let mut statements: Block = block.stmts().filter_map(|statement| self.statement(statement)).collect();
        match block.last_stmt() {
            Some(LastStmt::Return(values)) => {
                statements.push(Statement::Return(self.expressions(values.returns().iter())));
            }
            Some(_) => statements.push(Statement::Break),
            None => {}
        }
        statements
    }

    fn statement(&mut self, statement: &Stmt) -> Option<Statement> {
        Some(match statement {
            Stmt::LocalAssignment(local) => {
                let values = self.expressions(local.expressions().iter());
                let locals = local.names().iter().map(|name| self.declare(&token_text(name))).collect();
                Statement::Local { locals, values }
            }
            Stmt::Assignment(assignment) => {
                let values = self.expressions(assignment.expressions().iter());
                let targets = assignment.variables().iter().map(|var| self.target(var)).collect();
                Statement::Assign { targets, values }
            }
            Stmt::FunctionCall(call) => Statement::Call(self.call(call)),
            Stmt::Do(inner) => Statement::Do(self.block(inner.block())),
            Stmt::While(inner) => {
                let condition = self.expression(inner.condition());
                Statement::While { condition, block: self.block(inner.block()) }
            }
            Stmt::Repeat(inner) => self.scope(|lower| {
                let block = lower.statements(inner.block());
                Statement::Repeat { block, until: lower.expression(inner.until()) }
            }),
            Stmt::If(inner) => self.branches(inner),
            Stmt::NumericFor(inner) => {
                let mut values = vec![self.expression(inner.start()), self.expression(inner.end())];
                values.extend(inner.step().map(|step| self.expression(step)));
                self.scope(|lower| {
                    let locals = vec![lower.declare(&token_text(inner.index_variable()))];
                    Statement::For { locals, values, block: lower.statements(inner.block()) }
                })
            }
            Stmt::GenericFor(inner) => {
                let values = self.expressions(inner.expressions().iter());
                self.scope(|lower| {
                    let names = inner.names().iter();
                    let locals = names.map(|name| lower.declare(&token_text(name))).collect();
                    Statement::For { locals, values, block: lower.statements(inner.block()) }
                })
            }
            Stmt::FunctionDeclaration(function) => self.declaration(function),
            Stmt::LocalFunction(function) => {
                let local = self.declare(&token_text(function.name()));
                Statement::LocalFunction { local, body: self.body(function.body(), false) }
            }
            Stmt::Goto(_) | Stmt::Label(_) => Statement::Jump,
            _ => return None,
        })
    }

    fn branches(&mut self, inner: &ast::If) -> Statement {
        let mut arms = vec![(self.expression(inner.condition()), self.block(inner.block()))];
        for other in inner.else_if().into_iter().flatten() {
            let condition = self.expression(other.condition());
            arms.push((condition, self.block(other.block())));
        }
        Statement::If { arms, otherwise: inner.else_block().map(|block| self.block(block)) }
    }

    /// `function a.b.c() end` or `function a.b:c() end`
    fn declaration(&mut self, function: &ast::FunctionDeclaration) -> Statement {
        let name = function.name();
        let mut target = None;
        for part in name.names().iter().chain(name.method_name()) {
            let span = token_span(part);
            target = Some(match target {
                None => self.variable(part),
                Some(inner) => field(inner, token_text(part), span),
            });
        }
        let target = target.unwrap_or(Expr { span: 0..0, node: Node::Nil });
        self.note_write(&target);
        Statement::Function { target, body: self.body(function.body(), name.method_name().is_some()) }
    }

    fn body(&mut self, body: &FunctionBody, method: bool) -> Body {
        self.made += 1;
        let id = self.made;
        let block = self.scope(|lower| {
            if method {
                lower.declare("self");
            }
            for parameter in body.parameters() {
                if let Parameter::Name(name) = parameter {
                    lower.declare(&token_text(name));
                }
            }
            lower.statements(body.block())
        });
        Body { id, block }
    }

    fn target(&mut self, var: &Var) -> Expr {
        let target = self.var(var);
        self.note_write(&target);
        target
    }

    fn note_write(&mut self, target: &Expr) {
        if let Node::Local(id) = target.node
            && let Some(local) = self.locals.get_mut(id)
        {
            local.writes += 1;
        }
    }

    fn variable(&self, token: &TokenReference) -> Expr {
        let name = token_text(token);
        let node = self.find(&name).map_or_else(|| Node::Global(name), Node::Local);
        Expr { span: token_span(token), node }
    }

    fn var(&mut self, var: &Var) -> Expr {
        match var {
            Var::Name(name) => self.variable(name),
            Var::Expression(inner) => self.chain(inner.prefix(), inner.suffixes()),
            _ => unknown(var),
        }
    }

    fn call(&mut self, call: &FunctionCall) -> Expr {
        self.chain(call.prefix(), call.suffixes())
    }

    fn chain<'a>(&mut self, prefix: &Prefix, suffixes: impl Iterator<Item = &'a Suffix>) -> Expr {
        let mut inner = match prefix {
            Prefix::Name(name) => self.variable(name),
            Prefix::Expression(expression) => self.expression(expression),
            _ => unknown(prefix),
        };
        for (index, suffix) in suffixes.enumerate() {
            if index >= DEEPEST {
                return Expr { span: inner.span, node: Node::Vararg };
            }
            inner = self.suffix(inner, suffix);
        }
        inner
    }

    fn suffix(&mut self, inner: Expr, suffix: &Suffix) -> Expr {
        let span = inner.span.start..span_of(suffix).end;
        match suffix {
            Suffix::Index(Index::Dot { name, .. }) => field(inner, token_text(name), token_span(name)),
            Suffix::Index(Index::Brackets { expression, .. }) => {
                let key = self.expression(expression);
                Expr { span, node: Node::Index(Box::new(inner), Box::new(key)) }
            }
            Suffix::Call(ParsedCall::AnonymousCall(arguments)) => {
                let call = Call { callee: inner, method: None, arguments: self.arguments(arguments) };
                Expr { span, node: Node::Call(Box::new(call)) }
            }
            Suffix::Call(ParsedCall::MethodCall(call)) => {
                let method = Some((token_text(call.name()), token_span(call.name())));
                let call = Call { callee: inner, method, arguments: self.arguments(call.args()) };
                Expr { span, node: Node::Call(Box::new(call)) }
            }
            _ => unknown(suffix),
        }
    }

    fn arguments(&mut self, arguments: &FunctionArgs) -> Vec<Expr> {
        match arguments {
            FunctionArgs::Parentheses { arguments, .. } => self.expressions(arguments.iter()),
            FunctionArgs::String(token) => vec![text(token)],
            FunctionArgs::TableConstructor(table) => vec![self.table(table)],
            other => vec![unknown(other)],
        }
    }

    fn expressions<'a>(&mut self, list: impl Iterator<Item = &'a Expression>) -> Vec<Expr> {
        list.map(|expression| self.expression(expression)).collect()
    }

    fn expression(&mut self, expression: &Expression) -> Expr {
        if self.depth >= DEEPEST {
            return Expr { span: 0..0, node: Node::Vararg };
        }
        self.depth += 1;
        let lowered = self.shallow(expression);
        self.depth -= 1;
        lowered
    }

    fn shallow(&mut self, expression: &Expression) -> Expr {
        // Before its place is asked for, which takes as long as the expression is deep.
        if let Expression::BinaryOperator { lhs, binop, rhs } = expression {
            let (left, right) = (self.expression(lhs), self.expression(rhs));
            let start = if left.span.is_empty() { token_span(binop.token()).start } else { left.span.start };
            let span = start..right.span.end.max(start);
            return Expr { span, node: Node::Binary(operator(binop), Box::new(left), Box::new(right)) };
        }
        let span = span_of(expression);
        let node = match expression {
            Expression::Number(token) => Node::Number(number(&token_text(token))),
            Expression::String(token) => return text(token),
            Expression::Symbol(token) => symbol(token),
            Expression::Var(var) => return self.var(var),
            Expression::FunctionCall(call) => return self.call(call),
            Expression::TableConstructor(table) => return self.table(table),
            Expression::Function(function) => Node::Function(self.body(function.body(), false)),
            Expression::Parentheses { expression, .. } => {
                Node::Parentheses(Box::new(self.expression(expression)))
            }
            Expression::UnaryOperator { unop, expression } => {
                let operator = match unop {
                    UnOp::Not(_) => Unary::Not,
                    UnOp::Hash(_) => Unary::Length,
                    _ => Unary::Minus,
                };
                Node::Unary(operator, Box::new(self.expression(expression)))
            }
            _ => Node::Vararg,
        };
        Expr { span, node }
    }

    fn table(&mut self, table: &ast::TableConstructor) -> Expr {
        let fields = table.fields().iter().map(|entry| match entry {
            Field::ExpressionKey { key, value, .. } => (Some(self.expression(key)), self.expression(value)),
            Field::NameKey { key, value, .. } => {
                let name = Expr { span: token_span(key), node: Node::Text(Some(token_text(key))) };
                (Some(name), self.expression(value))
            }
            Field::NoKey(value) => (None, self.expression(value)),
            other => (None, unknown(other)),
        });
        Expr { node: Node::Table(fields.collect()), span: span_of(table) }
    }
}

/// Something of another Lua than LuaJIT's, which the parser was told not to take: any value.
fn unknown(node: &impl Parsed) -> Expr {
    Expr { span: span_of(node), node: Node::Vararg }
}

fn field(inner: Expr, name: String, span: Span) -> Expr {
    let whole = inner.span.start..span.end;
    let key = Expr { span, node: Node::Text(Some(name)) };
    Expr { span: whole, node: Node::Index(Box::new(inner), Box::new(key)) }
}

/// A string with an escape in it is not taken apart.
fn text(token: &TokenReference) -> Expr {
    let node = match token.token().token_type() {
        TokenType::StringLiteral { literal, quote_type, .. }
            if matches!(quote_type, StringLiteralQuoteType::Brackets) || !literal.contains('\\') =>
        {
            Node::Text(Some(literal.to_string()))
        }
        _ => Node::Text(None),
    };
    Expr { span: token_span(token), node }
}

fn symbol(token: &TokenReference) -> Node {
    match token.token().token_type() {
        TokenType::Symbol { symbol: Symbol::Nil } => Node::Nil,
        TokenType::Symbol { symbol: Symbol::True } => Node::Boolean(true),
        TokenType::Symbol { symbol: Symbol::False } => Node::Boolean(false),
        _ => Node::Vararg,
    }
}

fn operator(operator: &BinOp) -> Operator {
    match operator {
        BinOp::And(_) => Operator::And,
        BinOp::Or(_) => Operator::Or,
        BinOp::TwoEqual(_) => Operator::Equal,
        BinOp::TildeEqual(_) => Operator::NotEqual,
        BinOp::TwoDots(_) => Operator::Concat,
        BinOp::LessThan(_) | BinOp::LessThanEqual(_) | BinOp::GreaterThan(_) | BinOp::GreaterThanEqual(_) => {
            Operator::Order
        }
        _ => Operator::Arithmetic,
    }
}

/// The value of a number as Lua reads it, without LuaJIT's suffixes.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let (sign, digits) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let lower = digits.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|n| sign * n as f64);
    }
    let plain = lower.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if plain { lower.parse::<f64>().ok().map(|n| sign * n) } else { None }
}
