# SPDX-License-Identifier: GPL-2.0-or-later
# cloche-devices(7) out of `cloche-vm --list-devices`.
function roff(text) { gsub(/\\/, "\\e", text); gsub(/-/, "\\-", text); return text }
BEGIN {
    print ".\\\" Made from the device table: change it there."
    print ".TH CLOCHE\\-DEVICES 7 \"\" Cloche \"Miscellaneous Information\""
    print ".SH NAME\ncloche\\-devices \\- the devices of Cloche's machines and their properties"
    print ".SH DESCRIPTION\nDevices that are not part of the board are added by\n.BI \"cloche\\-vm \\-\\-device \" NAME[,PROPERTY=VALUE...]"
    print "or, in\n.BR machine.conf (5),\nby a group [Device ID] with\n.IR device=NAME[,PROPERTY=VALUE...] ."
    print ".SH DEVICES"
}
/^[^ ]/ { name = $1; sub(/^[^ ]+ +/, ""); print ".TP\n.B " roff(name) "\n" roff($0) "." }
/^ / {
    sub(/^ +/, "")
    at = index($0, "  ")
    print ".RS\n.TP\n.B " roff(substr($0, 1, at - 1)) "\n" roff(substr($0, at + 2)) ".\n.RE"
}
END { print ".SH SEE ALSO\n.BR cloche\\-vm (1),\n.BR clochectl (1),\n.BR machine.conf (5)" }
