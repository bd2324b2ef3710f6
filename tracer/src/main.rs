use turnaway::kernel::session::*;
fn main(){
 env_logger::init();
 let rt=tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
 rt.block_on(async{
 let t=std::time::Instant::now();
 let mut s=Session::start(&Options::default()).map_err(|e|{eprintln!("{e:?}");e}).unwrap();
 eprintln!("started {:?} {:#?}", t.elapsed(), s.hooks());
 for _ in 0..5 { std::thread::sleep(std::time::Duration::from_secs(1));
  s.drain(|f| println!("{f:?}"));
  println!("{:#?}", s.take_counts().unwrap()); println!("{:?}", s.losses().unwrap()); }
 s.detach().unwrap(); println!("{:#?}", s.take_counts().unwrap()); println!("{:?}", s.losses().unwrap());
 });
}
