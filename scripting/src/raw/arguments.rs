//! The arguments of a call, read without asking Lua for anything that may raise.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::type_name;
use crate::call::Argument;

/// The address of this is `avi.SIG_ENABLE`.
static SIGNIFICANT: u8 = 0;

/// The arguments of a call. They stay where they are, on Lua's stack, until the function returns.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'s> {
    pub(super) state: *mut lua_State,
    pub(super) count: c_int,
    pub(super) stack: PhantomData<&'s ()>,
}

impl<'s> Arguments<'s> {
    /// Number of arguments given.
    #[inline]
    pub(crate) fn count(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// The argument at `position`, counted from 1.
    #[inline]
    pub(crate) fn at(self, position: usize) -> Argument<'s> {
        let Ok(index) = c_int::try_from(position) else { return Argument::Missing };
        if index < 1 || index > self.count {
            return Argument::Missing;
        }
        // SAFETY: `index` is a valid stack position. None of these calls allocates or raises: `lua_tolstring` is
        // used on strings only, where it converts nothing. The string lives as long as its stack position, which
        // nothing removes before the C function returns ('s).
        unsafe {
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TNIL => Argument::Nil,
                ffi::LUA_TBOOLEAN => Argument::Boolean(ffi::lua_toboolean(self.state, index) != 0),
                ffi::LUA_TNUMBER => Argument::Number(ffi::lua_tonumber(self.state, index)),
                ffi::LUA_TSTRING => {
                    let mut len = 0;
                    let text = ffi::lua_tolstring(self.state, index, &raw mut len);
                    Argument::String(std::slice::from_raw_parts(text.cast(), len))
                }
                ffi::LUA_TLIGHTUSERDATA
                    if ptr::eq(ffi::lua_touserdata(self.state, index), significant_address()) =>
                {
                    Argument::Significant
                }
                other => Argument::Other(type_name(other)),
            }
        }
    }

    /// The argument of a call with one; else, and where there are more, as if none were given.
    #[inline]
    pub(crate) fn only(self) -> Argument<'s> {
        if self.count == 1 { self.at(1) } else { Argument::Missing }
    }

    /// The number that a string spells as Lua reads it (`"10"`, `" 0x1f "`), or the number itself.
    pub(crate) fn number_at(self, position: usize) -> Option<f64> {
        let index = c_int::try_from(position).ok().filter(|i| (1..=self.count).contains(i))?;
        // SAFETY: a valid stack position; neither call allocates or raises.
        unsafe { (ffi::lua_isnumber(self.state, index) != 0).then(|| ffi::lua_tonumber(self.state, index)) }
    }
}

pub(super) fn significant_address() -> *const c_void {
    (&raw const SIGNIFICANT).cast()
}
