//! The rules of users and roles: what is refused, in which words, and what a change counts.

use pilaster_tests::auth::{Ask, READ, READWRITE, WRITE};
use pilaster_tests::raw::{Failure, block_on};
use pilaster_tests::{Client, kind, tool};

use super::*;

#[test]
fn what_is_refused_while_it_is_off() {
    let server = start();
    block_on(async {
        let mut client = Client::connect(&server).await;
        let name = |name: &str| text(name);
        let bad_password = Failure {
            code: UNKNOWN,
            text: text("bcrypt: password length exceeds 72 bytes"),
        };
        let no_password = Failure {
            code: UNKNOWN,
            text: text("auth: authentication failed, password was given for no password user"),
        };
        let failed = |text| refused(FAILED_PRECONDITION, text);
        let invalid = |text| refused(INVALID_ARGUMENT, text);
        let long = "x".repeat(73);
        let script = [
            (Ask::Enable, Some(failed("root user does not exist"))),
            (
                Ask::UserAdd(name(""), name("x")),
                Some(invalid("user name is empty")),
            ),
            (
                Ask::UserAddWithout(name("")),
                Some(invalid("user name is empty")),
            ),
            (
                Ask::UserAdd(name("root"), long.clone()),
                Some(bad_password.clone()),
            ),
            (Ask::UserAdd(name("root"), "x".repeat(72)), None),
            (user("root"), Some(failed("user name already exists"))),
            (
                Ask::Enable,
                Some(failed("root user does not have root role")),
            ),
            (Ask::UserAdd(name("empty"), name("")), None),
            (Ask::UserAddWithout(name("cert")), None),
            (
                Ask::UserGet(name("bob")),
                Some(failed("user name not found")),
            ),
            (
                Ask::UserDelete(name("bob")),
                Some(failed("user name not found")),
            ),
            (
                Ask::Password(name("bob"), name("x")),
                Some(failed("user name not found")),
            ),
            (Ask::Password(name("root"), long), Some(bad_password)),
            (
                Ask::Hash(name("bob"), name("?")),
                Some(failed("user name not found")),
            ),
            (Ask::Hash(name("empty"), name("?")), Some(no_password)),
            (Ask::Hash(name("cert"), name("?")), None),
            (Ask::Password(name("cert"), name("x")), None),
            (Ask::RoleAdd(name("")), Some(invalid("role name is empty"))),
            (Ask::RoleAdd(name("r")), None),
            (
                Ask::RoleAdd(name("r")),
                Some(failed("role name already exists")),
            ),
            (Ask::RoleGet(name("s")), Some(failed("role name not found"))),
            (
                Ask::RoleGet(name("root")),
                Some(failed("role name not found")),
            ),
            (
                Ask::RoleDelete(name("s")),
                Some(failed("role name not found")),
            ),
            (
                Ask::GrantNothing(name("s")),
                Some(invalid("permission not given")),
            ),
            (
                grant("s", READ, "b", "a"),
                Some(invalid("invalid auth management")),
            ),
            (
                grant("s", READ, "a", "a"),
                Some(invalid("invalid auth management")),
            ),
            (
                grant("s", READ, "", "\0"),
                Some(invalid("invalid auth management")),
            ),
            (
                grant("s", READ, "a", "b"),
                Some(failed("role name not found")),
            ),
            (grant("r", READ, "a", "b"), None),
            (grant("r", READWRITE, "a", "b"), None),
            (grant("r", WRITE, "c", "\0"), None),
            (
                Ask::Revoke(name("s"), vec![b'a'], vec![]),
                Some(failed("role name not found")),
            ),
            (
                Ask::Revoke(name("r"), vec![b'a'], vec![]),
                Some(failed("permission is not granted to the role")),
            ),
            (
                Ask::GrantRole(name("bob"), name("r")),
                Some(failed("user name not found")),
            ),
            (
                Ask::GrantRole(name("root"), name("s")),
                Some(failed("role name not found")),
            ),
            (
                Ask::RevokeRole(name("root"), name("root")),
                Some(failed("role is not granted to the user")),
            ),
            (
                Ask::RevokeRole(name("bob"), name("root")),
                Some(failed("user name not found")),
            ),
            (
                Ask::Authenticate(name("root"), name("x")),
                Some(failed("authentication is not enabled")),
            ),
            (Ask::GrantRole(name("root"), name("root")), None),
            (Ask::GrantRole(name("root"), name("root")), None),
        ];
        for (ask, wanted) in script {
            assert_eq!(client.ask(&ask).await.err(), wanted, "{ask:?}");
        }
        let told = client.ask(&Ask::Status).await.expect("anybody may ask");
        // Users root, empty and cert; two new passwords; role r; three permissions; a role granted.
        assert_eq!(told.status(), (false, 11));
        let users = client.ask(&Ask::UserList).await.expect("it is off").names();
        assert_eq!(users, ["cert", "empty", "root"]);
        let held = client.ask(&Ask::RoleGet(text("r"))).await.expect("added");
        let bytes = |text: &str| text.as_bytes().to_vec();
        assert_eq!(
            held.permissions(),
            [
                (READWRITE, bytes("a"), bytes("b")),
                (WRITE, bytes("c"), bytes("\0"))
            ]
        );
    });
}

#[test]
fn what_is_refused_while_it_is_on() {
    let server = start();
    block_on(async {
        let mut nobody = Client::connect(&server).await;
        let mut root = turn_on(&mut nobody).await;
        let mut ann = add_user(&mut root, "ann", "a", "c").await;
        let invalid = |text| refused(INVALID_ARGUMENT, text);
        for ask in [
            Ask::UserDelete(text("root")),
            Ask::RoleDelete(text("root")),
            Ask::RevokeRole(text("root"), text("root")),
        ] {
            let wanted = invalid("invalid auth management");
            assert_eq!(refusal(root.ask(&ask).await), wanted, "{ask:?}");
        }
        let before = root
            .ask(&Ask::Status)
            .await
            .expect("anybody may ask")
            .status();
        let asks = [
            Ask::Enable,
            Ask::Disable,
            user("bob"),
            Ask::UserAddWithout(text("bob")),
            Ask::UserList,
            Ask::UserGet(text("root")),
            Ask::UserDelete(text("ann")),
            Ask::Password(text("ann"), text("x")),
            Ask::Hash(text("ann"), text("?")),
            Ask::GrantRole(text("ann"), text("root")),
            Ask::RevokeRole(text("ann"), text("ann")),
            Ask::RoleAdd(text("s")),
            Ask::RoleGet(text("root")),
            Ask::RoleList,
            Ask::RoleDelete(text("ann")),
            grant("ann", READ, "x", ""),
            Ask::Revoke(text("ann"), vec![b'a'], vec![b'c']),
        ];
        for ask in &asks {
            let wanted = invalid("user name is empty");
            assert_eq!(refusal(nobody.ask(ask).await), wanted, "{ask:?}");
            assert_eq!(refusal(ann.ask(ask).await), denied(), "{ask:?}");
        }
        let after = nobody
            .ask(&Ask::Status)
            .await
            .expect("anybody may ask")
            .status();
        assert_eq!(after, before, "nothing was changed");
        // About oneself one may ask.
        let held = ann.ask(&Ask::UserGet(text("ann"))).await.expect("her own");
        assert_eq!(held.names(), ["ann"]);
        let held = ann.ask(&Ask::RoleGet(text("ann"))).await.expect("her own");
        assert_eq!(held.permissions().len(), 1);
        let failed = refused(
            INVALID_ARGUMENT,
            "authentication failed, invalid user ID or password",
        );
        assert_eq!(refusal(nobody.token("ann", "wrong").await), failed);
        assert_eq!(refusal(nobody.token("eve", "evepw").await), failed);
        all(&mut root, &[Ask::UserAddWithout(text("cert"))]).await;
        let refusal = refusal(nobody.token("cert", "").await);
        assert_eq!(
            refusal.text,
            "auth: authentication failed, password was given for no password user"
        );
        assert!(root.ask(&Ask::Enable).await.is_ok(), "on already");
        assert_eq!(
            root.ask(&Ask::RoleList).await.expect("root may").names(),
            ["ann"]
        );
        all(&mut root, &[Ask::RoleAdd(text("root"))]).await;
        let held = root.ask(&Ask::RoleGet(text("root"))).await.expect("added");
        assert_eq!(held.permissions(), [(READWRITE, vec![], vec![0])]);
    });
}

/// The commands of the manual, by etcdctl of the reference version, with passwords on its input, in its flags and asked for.
#[test]
fn etcdctl_3_7() {
    let Some(program) = kind::peer("3.7.1/etcdctl") else {
        return;
    };
    let server = start();
    let run = |arguments: &[&str], input: &str| {
        let output = tool::etcdctl(&program, &server, arguments, input);
        output.expect_ok(&arguments.join(" ")).trim_end().to_owned()
    };
    let fails = |arguments: &[&str], wanted: &str| {
        let output = tool::etcdctl(&program, &server, arguments, "");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(output.stderr.contains(wanted), "{output:?}");
    };
    assert_eq!(
        run(&["auth", "status"], ""),
        "Authentication Status: false\nAuthRevision: 1"
    );
    assert_eq!(
        run(&["user", "add", "root", "--interactive=false"], "rootpw\n"),
        "User root created"
    );
    run(&["user", "add", "ann:annpw"], "");
    run(&["user", "add", "cert", "--no-password"], "");
    assert_eq!(run(&["role", "add", "r"], ""), "Role r created");
    run(
        &[
            "role",
            "grant-permission",
            "r",
            "readwrite",
            "k",
            "--prefix",
        ],
        "",
    );
    run(&["role", "grant-permission", "r", "read", "x"], "");
    run(
        &["role", "grant-permission", "r", "write", "z", "--from-key"],
        "",
    );
    let held = run(&["role", "get", "r"], "");
    let wanted = "Role r\nKV Read:\n\t[k, l) (prefix k)\n\tx\nKV Write:\n\t[k, l) (prefix k)\n\t[z, <open ended>";
    assert_eq!(held, wanted);
    run(&["user", "grant-role", "ann", "r"], "");
    // It gives root his role itself.
    assert_eq!(run(&["auth", "enable"], ""), "Authentication Enabled");
    let root = "--user=root:rootpw";
    let ann = ["--user=ann", "--password=annpw"];
    assert_eq!(run(&[root, "user", "list"], ""), "ann\ncert\nroot");
    assert_eq!(run(&[ann[0], ann[1], "put", "k1", "v"], ""), "OK");
    assert_eq!(run(&[ann[0], ann[1], "get", "k", "--prefix"], ""), "k1\nv");
    assert_eq!(run(&[ann[0], ann[1], "get", "x"], ""), "");
    fails(&[ann[0], ann[1], "put", "x", "v"], "permission denied");
    fails(&[ann[0], ann[1], "get", "z"], "permission denied");
    fails(&["get", "k1"], "user name is empty");
    fails(
        &["--user=ann:wrong", "get", "k1"],
        "invalid user ID or password",
    );
    run(&[root, "role", "revoke-permission", "r", "x"], "");
    fails(&[ann[0], ann[1], "get", "x"], "permission denied");
    run(
        &[root, "user", "passwd", "ann", "--interactive=false"],
        "newpw\n",
    );
    fails(
        &[ann[0], ann[1], "get", "k1"],
        "invalid user ID or password",
    );
    assert_eq!(run(&["--user=ann:newpw", "get", "k1"], ""), "k1\nv");
    run(&[root, "user", "revoke-role", "ann", "r"], "");
    fails(&["--user=ann:newpw", "get", "k1"], "permission denied");
    run(&[root, "user", "delete", "ann"], "");
    run(&[root, "role", "delete", "r"], "");
    assert_eq!(
        run(&[root, "auth", "disable"], ""),
        "Authentication Disabled"
    );
    assert_eq!(run(&["get", "k1"], ""), "k1\nv");
}
