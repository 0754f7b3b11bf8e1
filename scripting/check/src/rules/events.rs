//! Calls that are not available in the event of the script.

use super::{Report, Script};
use crate::check::Role;
use crate::finding::Rule;
use crate::value::What;
use crate::walk::Event;

pub(crate) fn check(script: &Script<'_>, report: &mut Report) {
    let Role::Script(event) = script.settings.role else { return };
    for fact in script.facts {
        let Event::Call(call) = &fact.what else { continue };
        let What::Function(function) = call.callee.what else { continue };
        if function.events.has(event) {
            continue;
        }
        let message = format!(
            "{} is not available in {}; available in: {}",
            function.name,
            event.name(),
            function.events.text()
        );
        let cure = "do this in the request script of the set, before a server is chosen";
        report.error(Rule::Event, &call.name, message, cure);
    }
}
