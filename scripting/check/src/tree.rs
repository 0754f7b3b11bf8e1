//! A script as the checks see it: names are resolved to local variables or globals, and punctuation is gone.

use std::ops::Range;

/// Bytes of the text.
pub(crate) type Span = Range<usize>;

/// A local variable, by its place in [`Tree::locals`].
pub(crate) type LocalId = usize;

/// A function of the text by its number; the main chunk is 0.
pub(crate) type FunctionId = usize;

/// A whole script.
pub(crate) struct Tree {
    pub(crate) block: Block,
    pub(crate) locals: Vec<Local>,
}

/// A local variable, parameter or loop variable.
pub(crate) struct Local {
    pub(crate) name: String,
    /// Assignments after its declaration.
    pub(crate) writes: usize,
}

/// Statements in their order.
pub(crate) type Block = Vec<Statement>;

/// One statement.
pub(crate) enum Statement {
    Local {
        locals: Vec<LocalId>,
        values: Vec<Expr>,
    },
    Assign {
        targets: Vec<Expr>,
        values: Vec<Expr>,
    },
    Call(Expr),
    Do(Block),
    While {
        condition: Expr,
        block: Block,
    },
    Repeat {
        block: Block,
        until: Expr,
    },
    If {
        arms: Vec<(Expr, Block)>,
        otherwise: Option<Block>,
    },
    For {
        locals: Vec<LocalId>,
        values: Vec<Expr>,
        block: Block,
    },
    /// `function a.b.c() end`
    Function {
        target: Expr,
        body: Body,
    },
    LocalFunction {
        local: LocalId,
        body: Body,
    },
    Return(Vec<Expr>),
    Break,
    /// `goto` or a label.
    Jump,
}

/// A function.
pub(crate) struct Body {
    pub(crate) id: FunctionId,
    pub(crate) block: Block,
}

/// An expression with its place.
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) node: Node,
}

/// What an expression is.
pub(crate) enum Node {
    Nil,
    Boolean(bool),
    /// `None` where the text has a suffix of LuaJIT's own.
    Number(Option<f64>),
    /// `None` where the text has an escape.
    Text(Option<String>),
    Vararg,
    Function(Body),
    /// Keys and values in their order.
    Table(Vec<(Option<Expr>, Expr)>),
    Local(LocalId),
    Global(String),
    /// `a.b` or `a[b]`
    Index(Box<Expr>, Box<Expr>),
    Call(Box<Call>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Unary(Unary, Box<Expr>),
    /// In parentheses, which cut many results to one.
    Parentheses(Box<Expr>),
}

/// A call; `method` is the name after a colon.
pub(crate) struct Call {
    pub(crate) callee: Expr,
    pub(crate) method: Option<(String, Span)>,
    pub(crate) arguments: Vec<Expr>,
}

/// A binary operator, as far as the checks tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    And,
    Or,
    Equal,
    NotEqual,
    /// `<`, `<=`, `>`, `>=`
    Order,
    Concat,
    Arithmetic,
}

/// A unary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
    Not,
    Minus,
    Length,
}

impl Expr {
    /// The expression without the parentheses around it.
    pub(crate) fn bare(&self) -> &Expr {
        match &self.node {
            Node::Parentheses(inner) => inner.bare(),
            _ => self,
        }
    }

    /// Whether it may give more or fewer values than one.
    pub(crate) fn is_many(&self) -> bool {
        matches!(self.node, Node::Call(_) | Node::Vararg)
    }
}

/// Whether nothing after the block is reached from its end.
pub(crate) fn leaves(block: &Block) -> bool {
    match block.last() {
        Some(Statement::Return(_) | Statement::Break) => true,
        Some(Statement::Do(inner)) => leaves(inner),
        _ => false,
    }
}
