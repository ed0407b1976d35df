//! The directory of users.

use super::kit::{Kit, Make, of_topic, of_user, topic_named, user_id};
use super::wakes::Wakes;
use super::{Fault, Outcome, holds, same};
use crate::{DirectoryError, MemberChange, Put, UserPut};
use postrider_model::{Millis, Profile, State, UserId};

fn put(user: &str, locale: &str, topics: Option<&[&str]>) -> Result<UserPut, Fault> {
    let topics = topics.map(|topics| topics.iter().map(|topic| topic_named(topic)).collect());
    Ok(UserPut {
        user: user_id(user)?,
        profile: profile(locale),
        topics: topics.transpose()?,
    })
}

fn profile(locale: &str) -> Profile {
    Profile {
        locale: Some(locale.to_owned()),
        attributes: [("plan".to_owned(), "ü".to_owned())].into(),
        ..Profile::default()
    }
}

async fn put_one(kit: &Kit, one: UserPut) -> Result<Result<Put, DirectoryError>, Fault> {
    Ok(kit.engine().put_users(vec![one]).await?.remove(0))
}

/// The topics that a user is a member of.
async fn topics(kit: &Kit, user: &str) -> Result<Vec<String>, Fault> {
    let memberships = kit.engine().memberships(&user_id(user)?).await?;
    let current = memberships.iter().filter(|one| one.is_current());
    Ok(current.map(|one| one.topic.to_string()).collect())
}

pub(super) async fn users_are_written_read_and_removed(kit: &mut Kit) -> Outcome {
    let (ada, begin) = (user_id("ada")?, kit.now());
    same!(kit.engine().user(&ada).await?, None, "before");
    same!(kit.engine().remove_user(&ada).await?, false, "removing nobody");
    same!(
        put_one(kit, put("ada", "de", Some(&["a", "b"]))?).await?,
        Ok(Put::Created),
        "first"
    );
    kit.pass(Millis(5)).await;
    same!(
        put_one(kit, put("ada", "de", Some(&["b", "a", "b"]))?).await?,
        Ok(Put::Same),
        "again"
    );
    same!(
        put_one(kit, put("ada", "fr", None)?).await?,
        Ok(Put::Changed),
        "another profile"
    );
    kit.restart().await;
    let entry = kit.engine().user(&ada).await?;
    let entry = entry.ok_or_else(|| Fault::from("ada is gone".to_owned()))?;
    same!(entry.profile, profile("fr"), "the profile");
    same!(
        (entry.created_at, entry.changed_at),
        (begin, begin.plus(Millis(5))),
        "the times"
    );
    same!(topics(kit, "ada").await?, ["a", "b"], "the topics");
    kit.publish(Make::new("n").topics(&["a"])).await?;
    same!(kit.engine().remove_user(&ada).await?, true, "removing");
    same!(kit.engine().user(&ada).await?, None, "then");
    same!(topics(kit, "ada").await?, Vec::<String>::new(), "the topics then");
    same!(
        kit.state("n", "ada").await?,
        Some(State::Pending),
        "the inbox stays"
    );
    same!(kit.engine().remove_user(&ada).await?, false, "again");
    kit.join("bob", "a").await?;
    let bob = kit.engine().user(&user_id("bob")?).await?;
    same!(
        bob.map(|entry| entry.profile),
        Some(Profile::default()),
        "added by joining"
    );
    kit.leave("eve", "a").await?;
    same!(kit.engine().user(&user_id("eve")?).await?, None, "not by leaving");
    Ok(())
}

pub(super) async fn one_refused_user_leaves_the_others(kit: &mut Kit) -> Outcome {
    let many: Vec<_> = (0..200).map(|n| format!("t-{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let batch = vec![
        put("ada", "de", None)?,
        put("bob", "de", Some(&many))?,
        put("eve", "de", Some(&["t-1"]))?,
    ];
    let answers = kit.engine().put_users(batch).await?;
    let most = 98;
    let refused = Err(DirectoryError::TooManyTopics { most });
    same!(
        answers,
        [Ok(Put::Created), refused, Ok(Put::Created)],
        "the answers"
    );
    same!(
        kit.engine().user(&user_id("bob")?).await?,
        None,
        "nothing of the refused"
    );
    same!(
        topics(kit, "bob").await?,
        Vec::<String>::new(),
        "no topic of the refused"
    );
    same!(
        kit.engine().members(&topic_named("t-1")?, None, 9).await?.count,
        1,
        "members"
    );
    Ok(())
}

pub(super) async fn users_and_members_come_in_pages(kit: &mut Kit) -> Outcome {
    let names: Vec<_> = (0..25).map(|n| format!("u-{n:02}")).collect();
    let batch: Result<Vec<_>, _> = names.iter().map(|name| put(name, "de", Some(&["t"]))).collect();
    kit.engine().put_users(batch?).await?;
    kit.join("u-", "t2").await?;
    let topic = topic_named("t")?;
    let (mut users, mut members, mut after) = (Vec::new(), Vec::new(), None);
    for _ in 0..3 {
        let page = kit.engine().members(&topic, after.clone(), 10).await?;
        same!(page.count, 25, "members in all");
        after = page.users.last().cloned();
        members.extend(page.users.iter().map(UserId::to_string));
        same!(page.more, members.len() < 25, "more after {}", members.len());
    }
    same!(members, names, "members by rising id");
    let mut after = None;
    loop {
        let page = kit.engine().users(after.clone(), 7).await?;
        after = page.users.last().map(|one| one.user.clone());
        users.extend(
            page.users
                .into_iter()
                .map(|one| (one.user.to_string(), one.memberships.len())),
        );
        if !page.more {
            break;
        }
        holds!(users.len() < 100, "pages without an end");
    }
    let all = ["u-"].into_iter().chain(names.iter().map(String::as_str));
    let all: Vec<_> = all.map(|name| (name.to_owned(), 1)).collect();
    same!(users, all, "users by rising id");
    Ok(())
}

pub(super) async fn a_put_makes_the_topics_exactly_these(kit: &mut Kit) -> Outcome {
    let wakes = Wakes::listen(kit, &[of_user("ada")?, of_topic("a")?]).await?;
    put_one(kit, put("ada", "de", Some(&["a", "b"]))?)
        .await?
        .map_err(|e| e.to_string())?;
    kit.publish(Make::new("n").topics(&["a"])).await?;
    let changed = put_one(kit, put("ada", "de", Some(&["c", "b"]))?).await?;
    same!(changed, Ok(Put::Changed), "other topics");
    same!(topics(kit, "ada").await?, ["b", "c"], "then");
    same!(
        kit.state("n", "ada").await?,
        Some(State::Pending),
        "what came before stays"
    );
    let told = [
        "ada joins a at 0",
        "ada joins b at 0",
        "topic/a n",
        "ada leaves a at 1",
        "ada joins c at 0",
    ];
    wakes.tell(kit, &told).await?;
    same!(
        put_one(kit, put("ada", "de", Some(&[]))?).await?,
        Ok(Put::Changed),
        "none"
    );
    same!(topics(kit, "ada").await?, Vec::<String>::new(), "then");
    for (topic, count) in [("a", 0), ("b", 0), ("c", 0)] {
        same!(
            kit.engine().members(&topic_named(topic)?, None, 9).await?.count,
            count,
            "members of {topic}"
        );
    }
    Ok(())
}

pub(super) async fn erasing_leaves_all_topics(kit: &mut Kit) -> Outcome {
    let ada = user_id("ada")?;
    put_one(kit, put("ada", "de", Some(&["a", "b"]))?)
        .await?
        .map_err(|e| e.to_string())?;
    put_one(kit, put("bob", "de", Some(&["a"]))?)
        .await?
        .map_err(|e| e.to_string())?;
    kit.publish_all([Make::new("n").topics(&["a"]), Make::new("m").topics(&["a"])])
        .await?;
    kit.ack("ada", &["m"]).await?;
    let wakes = Wakes::listen(kit, &[of_user("ada")?]).await?;
    same!(kit.engine().erase(&ada).await?, true, "something was known");
    wakes
        .tell(kit, &["ada leaves a at 2", "ada leaves b at 0"])
        .await?;
    same!(kit.engine().user(&ada).await?, None, "the record");
    same!(kit.engine().memberships(&ada).await?, [], "the memberships");
    same!(kit.state("n", "ada").await?, None, "the inbox");
    same!(kit.states("m").await?, [], "what ada did");
    same!(kit.floor("ada", &of_topic("a")?).await?, 0, "the floor");
    let page = kit.engine().members(&topic_named("a")?, None, 9).await?;
    same!(
        (page.users, page.count),
        (vec![user_id("bob")?], 1),
        "who is left"
    );
    same!(kit.engine().erase(&ada).await?, false, "again");
    let change = MemberChange {
        topic: topic_named("a")?,
        user: ada,
        joins: true,
    };
    same!(
        kit.engine().change_members(vec![change]).await?,
        [Ok(true)],
        "as a new user"
    );
    same!(kit.state("n", "ada").await?, None, "what came before");
    Ok(())
}
